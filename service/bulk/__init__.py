"""Whole folders of pictures to answers in a Parquet data set, without HTTP."""
