"""Classifiers in bfloat16, or with linear layers in 8 bits, on kernels made for that.

Stem, linear layers and the products of attention take bfloat16 and sum in float32; norms, softmax,
GELU and the residual stream are in float32. In int8, linear layers of blocks take 8 bits and sum
integers. The operators exist in the compiled kernels alone (service/native/operators_bf16.cpp,
operators_layers.cpp), so graphs are rewritten when they are loaded.
"""
