"""Explaining a prediction: selected attention maps, similarity measures, and pictures of both."""
