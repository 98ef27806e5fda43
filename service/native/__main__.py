"""Compile the kernels beside their sources.

That for processors with the C++ compiler that CXX names, or g++; that for GPUs with the nvcc that
NVCC names, or on the path, or from pip, where there is one.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from service.native import CUDA_LIBRARY, LIBRARY

_SOURCES = LIBRARY.parent
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-Wno-psabi"]
_FLAGS += ["-fno-math-errno"]  # or roots would be taken one by one
_OPERATORS = ("operators.cpp", "operators_similarity.cpp")
_KERNELS = ("attend", "similarity", "features")
# One copy of each kernel for each kind of processor, which is chosen where it runs.
_KINDS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    _KINDS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4"]}

_CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden"]
# Compute capabilities; what is newer than all of them compiles the first anew when it loads it.
_CARDS = ("80", "86", "89", "90", "100", "120")
_PIP_CUDA = Path(sysconfig.get_path("purelib"), "nvidia", "cu13")


def main() -> int:
    """Exit status 1 with one line if one cannot be compiled: models run without it."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        print("native: no C++ compiler; attention runs without its kernel", file=sys.stderr)
        return 1
    commands = {LIBRARY: _for_processors(compiler)}
    if nvcc := _nvcc():
        commands[CUDA_LIBRARY] = _for_cards(nvcc)
    return max(_build(library, steps) for library, steps in commands.items())


def _build(library: Path, steps: list[list[str]]) -> int:
    """Run commands in a folder, the last of which makes the library there."""
    with TemporaryDirectory(dir=_SOURCES) as folder:
        try:
            for command in steps:
                subprocess.run(command, cwd=folder, check=True)
        except subprocess.CalledProcessError as exc:
            print(f"native: attention runs without {library.name}, failed: {exc}", file=sys.stderr)
            return 1
        Path(folder, library.name).replace(library)
    return 0


def _for_processors(compiler: str) -> list[list[str]]:
    steps, objects = [], []
    for (kind, flags), kernel in product(_KINDS.items(), _KERNELS):
        define, made = f"-D{kernel.upper()}={kernel}_{kind}", f"{kernel}_{kind}.o"
        source = _source(f"{kernel}.cpp")
        steps.append([compiler, *_FLAGS, *flags, define, "-c", source, "-o", made])
        objects.append(made)
    operators = [_source(name) for name in _OPERATORS]
    return [*steps, [compiler, *_FLAGS, "-shared", *operators, *objects, "-o", LIBRARY.name]]


def _for_cards(nvcc: str) -> list[list[str]]:
    code = [f"-gencode=arch=compute_{card},code=sm_{card}" for card in _CARDS]
    code.append(f"-gencode=arch=compute_{_CARDS[0]},code=compute_{_CARDS[0]}")
    sources = [_source("operators_cuda.cpp"), _source("attend.cu")]
    libraries = f"-L{Path(nvcc).parent.parent / 'lib'}"  # where pip has them
    return [[nvcc, *_CUDA_FLAGS, *code, "-shared", libraries, *sources, "-o", CUDA_LIBRARY.name]]


def _nvcc() -> str | None:
    return shutil.which(os.environ.get("NVCC", "nvcc")) or shutil.which(
        "nvcc", path=str(_PIP_CUDA / "bin")
    )


def _source(name: str) -> str:
    return str(_SOURCES / name)


if __name__ == "__main__":
    sys.exit(main())
