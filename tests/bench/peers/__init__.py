"""Servers that a user would write instead, each as short as in the documentation of its library.

All decode, preprocess and answer in the same way (`answer`) and run the same ONNX file or network;
they differ in how requests reach it. None is tuned beyond the advice of its own documentation.
"""
