"""Compiled kernels for attention and for similarity measures.

Attention is fused: maps are mixed and used while they are in the cache, and not written to memory
unless they are asked for. `python -m service.native` compiles the kernels, for every instruction
set at once. ONNX Runtime runs them as the project's operators in exported graphs; without the
library, it computes these operators from the plain bodies that the graphs include.
"""

from pathlib import Path

LIBRARY = Path(__file__).parent / "libdeepvit.so"
CUDA_LIBRARY = LIBRARY.with_name("libdeepvit_cuda.so")
