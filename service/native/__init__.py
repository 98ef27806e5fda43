"""A kernel for attention: maps are mixed and used up in the cache, and never written to memory.

`python -m service.native` compiles it, for every kind of processor at once. ONNX Runtime
takes it for the operators `Attention` and `ReAttention` of exported graphs, which it computes
from their plain bodies where there is no compiled kernel.
"""

from pathlib import Path

LIBRARY = Path(__file__).parent / "libdeepvit.so"
CUDA_LIBRARY = LIBRARY.with_name("libdeepvit_cuda.so")
