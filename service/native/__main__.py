"""`python -m service.native`: compile the kernels into libraries beside their sources.

Those for CPUs are compiled by the C++ compiler that the variable CXX names, or g++, with the flags
in CXXFLAGS added; it must be GCC 12 or newer, whose extensions they use. Those for GPUs are
compiled if there is an nvcc: the one that NVCC names, one on the path, or pip's.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from service.native import CUDA_LIBRARY, LIBRARY
from service.native.sources import (
    CUDA,
    FOLDER,
    KERNELS,
    OPERATORS,
    REDUCED_KERNELS,
    hash_of_sources,
)

_OLDEST_GCC = 12
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
_FLAGS += ["-fno-math-errno"]  # or square roots would not be vectorised
# Each kernel is compiled once for each instruction set; which copy runs is chosen at run time.
_INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
_REDUCED_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    _INSTRUCTION_SETS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4"]}
    _REDUCED_SETS |= {"avx512_bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"]}

_CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden"]
# Compute capabilities. GPUs newer than all of these compile the first one's code when they load it.
_CAPABILITIES = ("80", "86", "89", "90", "100", "120")
_PIP_CUDA = Path(sysconfig.get_path("purelib"), "nvidia", "cu13")


def main() -> int:
    """Exit status 1, with one line, if a library cannot be compiled; models run without it."""
    wanted = os.environ.get("CXX", "g++")
    compiler = shutil.which(wanted)
    macros = _macros(compiler) if compiler else {}
    if compiler is None or "__clang__" in macros or int(macros.get("__GNUC__", 0)) < _OLDEST_GCC:
        found = macros.get("__VERSION__", "no C++ compiler")
        print(
            f"native: models run without compiled kernels, which need GCC {_OLDEST_GCC} or newer: "
            f"{wanted} is {found if compiler else 'not there'}; CXX can name another compiler",
            file=sys.stderr,
        )
        return 1
    commands = {LIBRARY: _cpu_commands(compiler)}
    if nvcc := _nvcc():
        commands[CUDA_LIBRARY] = _cuda_commands(nvcc)
    return max(_build(library, steps) for library, steps in commands.items())


def _macros(compiler: str) -> dict[str, str]:
    """What a compiler says of itself; nothing if it cannot preprocess C++."""
    command = [compiler, "-x", "c++", "-E", "-dM", os.devnull]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (line.split(maxsplit=2) for line in asked.stdout.splitlines())
    return {line[1]: line[-1].strip('"') for line in lines if line[:1] == ["#define"]}


def _build(library: Path, steps: list[list[str]]) -> int:
    """Run commands in a temporary folder, several at once; then the last, which links them."""
    *compilations, link = steps
    with TemporaryDirectory(dir=FOLDER) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        run = partial(subprocess.run, cwd=folder, check=True)
        try:
            list(pool.map(run, compilations))
            run(link)
        except subprocess.CalledProcessError as exc:
            message = f"compiling {library.name} failed, models run without it: {exc}"
            print(f"native: {message}", file=sys.stderr)
            return 1
        Path(folder, library.name).replace(library)
    return 0


def _cpu_commands(compiler: str) -> list[list[str]]:
    command = [compiler, *_FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    steps, objects = [], []
    copies = [
        *product(_INSTRUCTION_SETS.items(), KERNELS),
        *product(_REDUCED_SETS.items(), REDUCED_KERNELS),
    ]
    for (instruction_set, flags), kernel in copies:
        name = f"{kernel}_{instruction_set}"
        define, source = f"-D{kernel.upper()}={name}", str(FOLDER / f"{kernel}.cpp")
        steps.append([*command, *flags, define, "-c", source, "-o", f"{name}.o"])
        objects.append(f"{name}.o")
    inputs = [_define_hash(LIBRARY), *_paths(OPERATORS), *objects]
    return [*steps, [*command, "-shared", *inputs, "-o", LIBRARY.name]]


def _cuda_commands(nvcc: str) -> list[list[str]]:
    code = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in _CAPABILITIES]
    code.append(f"-gencode=arch=compute_{_CAPABILITIES[0]},code=compute_{_CAPABILITIES[0]}")
    libraries = f"-L{Path(nvcc).parent.parent / 'lib'}"  # where pip has them
    inputs = [_define_hash(CUDA_LIBRARY), libraries, *_paths(CUDA)]
    return [[nvcc, *_CUDA_FLAGS, *code, "-shared", *inputs, "-o", CUDA_LIBRARY.name]]


def _nvcc() -> str | None:
    return shutil.which(os.environ.get("NVCC", "nvcc")) or shutil.which(
        "nvcc", path=str(_PIP_CUDA / "bin")
    )


def _define_hash(library: Path) -> str:
    return f"-DSOURCES={hash_of_sources(library.name)}"


def _paths(names: Sequence[str]) -> list[str]:
    return [str(FOLDER / name) for name in names]


if __name__ == "__main__":
    sys.exit(main())
