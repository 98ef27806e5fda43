"""Servers that a user would write or choose instead, as short as in their documentation.

All take a JPEG as the body of a request, decode, preprocess and answer in the same way (`answer`),
and run the same ONNX file or network; they differ in how requests reach it. Each file says which
pages of its documentation its set-ups are from; `tests/bench/lineup.py` has the set-ups.
"""
