"""Where a model runs, in which precision and with which kernels: resolved from what was asked for.

`auto` stands for the fastest there is. Opens no session, which is what shows if a GPU works.
"""

import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import onnxruntime as ort

from service import native
from service.errors import StartupError
from service.inference.graphs import Graphs
from service.native.sources import is_stale
from service.native.symbols import (
    INSTRUCTION_SETS,
    allow,
    attention_calls,
    multiplies_bf16,
)

_logger = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class Execution:
    provider: str  # a key of PROVIDERS
    precision: str  # fp32, bf16, fp16 or int8
    kernels: Path | None = None  # the library of compiled kernels, for what the graphs have of them
    reduced: bool = False  # whether blocks run on kernels in bf16 or int8


def resolve_provider(wanted: str) -> str:
    """The provider to try first. Raises `StartupError`."""
    available = ort.get_available_providers()
    if PROVIDERS["cuda"] in available and wanted != "cpu":
        ort.preload_dlls()  # CUDA and cuDNN as pip installed them, which no loader path names
    if wanted == "auto":
        return "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if PROVIDERS[wanted] not in available:
        raise StartupError(f"provider {wanted} was asked for, but ONNX Runtime has {available}")
    return wanted


def resolve_precision(wanted: str, provider: str, graphs: Graphs) -> str:
    """One of the exported precisions, or bf16, which kernels have. Raises `StartupError`."""
    if wanted == "bf16":
        if provider != "cpu":
            raise StartupError(f"bf16 was asked for, which is for processors, not for {provider}")
        return wanted
    if wanted == "auto":
        return "fp16" if provider == "cuda" and "fp16" in graphs.precisions else "fp32"
    if wanted not in graphs.precisions:
        raise StartupError(f"{graphs.folder} has no {wanted}: export with --precision {wanted}")
    return wanted


def with_kernels(plain: Execution, best_copy: str = "auto") -> Execution:
    """The same on compiled kernels, which can be loaded. Raises `StartupError`.

    For a CPU their library holds a copy for each instruction set; sessions use none better than
    `best_copy`. The baseline has bf16 and int8 too, which it computes slowly.
    """
    provider, precision = plain.provider, plain.precision
    if provider == "cpu" and precision != "fp16":
        library = native.LIBRARY
    elif (provider, precision) == ("cuda", "fp16"):
        library = native.CUDA_LIBRARY
    else:
        raise StartupError(f"there is no kernel for {precision} on {provider}")
    if not library.exists():
        raise StartupError(
            f"there is no {library}: python -m service.native compiles it, with GCC 12 or newer"
        )
    reduced = precision in ("bf16", "int8")
    try:
        ort.SessionOptions().register_custom_ops_library(str(library))
        attention_calls(library)
        if library == native.LIBRARY:
            allow(library, INSTRUCTION_SETS[-1] if best_copy == "auto" else best_copy)
        if reduced and best_copy != "baseline":
            reduced = multiplies_bf16(library)
    except Exception as exc:  # ONNX Runtime's errors have no common class; AttributeError is ours
        raise StartupError(
            f"python -m service.native has not compiled a kernel that loads here: {one_line(exc)}"
        ) from exc
    if precision == "bf16" and not reduced:
        raise StartupError("this processor has no AVX512-BF16, without which fp32 is faster")
    _warn_if_stale(library)
    return replace(plain, kernels=library, reduced=reduced)


@cache  # once, however many models use the library
def _warn_if_stale(library: Path) -> None:
    if is_stale(library):
        _logger.warning("%s is older than its sources: run python -m service.native", library)


def one_line(exc: Exception) -> str:
    """What an error of ONNX Runtime says, which may be spread over many lines."""
    return " ".join(str(exc).split())
