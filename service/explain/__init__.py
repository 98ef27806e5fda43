"""Which part of the attention maps is asked for, how alike maps are, and both drawn as pictures."""
