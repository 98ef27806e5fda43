"""The servers that a user would write instead, as small as their documentation has them.

All decode, preprocess and answer alike (`answer`) and run the same ONNX file or network; what
differs is how requests get to it. None is tuned beyond what its own documentation advises.
"""
