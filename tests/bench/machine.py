"""Describes the machine on which figures were measured."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime

from service.inference.cpus import available_cpus

_PACKAGES = (
    "torch",
    "openvino",
    "nncf",
    "litserve",
    "mosec",
    "fastapi",
    "uvicorn",
    "pillow",
    "ray",
)


def machine() -> dict[str, object]:
    """Processor, cores, memory, and versions of everything that is measured."""
    return {
        "cpu": _cpu_model(),
        "cores": available_cpus(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {"onnxruntime": onnxruntime.__version__}  # either package, onnxruntime or -gpu
        | {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    flags = named.get("flags", "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if flag in flags]
    return f"{named.get('model name', platform.machine())} ({' '.join(wide) or 'no AVX2'})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
