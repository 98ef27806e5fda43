"""Classifiers in bfloat16, for processors that multiply it by themselves.

Stem, linear layers and the products of attention take bfloat16 and sum in float32; norms, softmax,
GELU and the residual stream are in float32. The operators exist in the compiled kernels alone
(service/native/operators_bf16.cpp), so graphs are rewritten when they are loaded.
"""
