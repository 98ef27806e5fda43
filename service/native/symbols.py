"""What a compiled library can be asked, beside what ONNX Runtime calls it for."""

import ctypes
from pathlib import Path

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # as instruction_set.h numbers them


def allow(library: Path, best: str) -> None:
    """Sessions that are opened from now on use no better copy of the kernels than `best`.

    Raises `AttributeError` if the library is too old.
    """
    ctypes.CDLL(str(library)).deepvit_allow(INSTRUCTION_SETS.index(best))


def chosen_copy(library: Path) -> str:
    """The best copy that is allowed and that this processor can run."""
    ask = ctypes.CDLL(str(library)).deepvit_instruction_set
    ask.restype = ctypes.c_char_p
    chosen: bytes = ask()
    return chosen.decode()


def multiplies_bf16(library: Path) -> bool:
    """Whether this processor multiplies bfloat16 by itself, in copies that are allowed.

    Raises `AttributeError`, too.
    """
    ask = ctypes.CDLL(str(library)).deepvit_has_bf16
    ask.restype = ctypes.c_bool
    return bool(ask())


def attention_calls(library: Path) -> int:
    """How often an operator of attention has run on this thread. Raises `AttributeError`, too."""
    count = ctypes.CDLL(str(library)).deepvit_attention_calls
    count.restype = ctypes.c_int64
    return int(count())
