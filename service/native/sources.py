"""What each library is compiled from, and the hash of it that the compiled library carries.

A library that was compiled from other sources than those beside it is stale.
"""

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent
KERNELS = ("attend", "similarity", "features")  # compiled once for each instruction set
# Compiled for AVX512-BF16 with VNNI, and for the baseline
REDUCED_KERNELS = ("bf16_attend", "bf16_stem", "layers")
OPERATORS = (
    "operators.cpp",
    "operators_similarity.cpp",
    "operators_bf16.cpp",
    "operators_layers.cpp",
)
CUDA = ("operators_cuda.cpp", "attend.cu")
_BY_LIBRARY = {
    "libdeepvit.so": (*(f"{kernel}.cpp" for kernel in (*KERNELS, *REDUCED_KERNELS)), *OPERATORS),
    "libdeepvit_cuda.so": CUDA,
}
_FLAGS = "__main__.py"
_LABEL = re.compile(rb"deepvit sources ([0-9a-f]{64})\0")  # as sources.h has it


def hash_of_sources(library: str) -> str:
    """Of the sources on disk that a library is compiled from, headers and flags included."""
    digest = hashlib.sha256()
    headers = sorted(path.name for path in FOLDER.glob("*.h"))
    for name in (*_BY_LIBRARY[library], *headers, _FLAGS):
        content = (FOLDER / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def hash_in(library: Path) -> str | None:
    """Of the sources that a library was compiled from; None if it does not say."""
    found = _LABEL.search(library.read_bytes())
    return found[1].decode() if found else None


def is_stale(library: Path) -> bool:
    """Whether a library was compiled from other sources than those on disk, where there are any."""
    try:
        return hash_in(library) != hash_of_sources(library.name)
    except FileNotFoundError:
        return False
