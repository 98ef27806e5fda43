"""Compile the kernel beside its sources, with the C++ compiler that CXX names, or g++."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from service.native import LIBRARY

_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-Wno-psabi"]
# One copy of the kernel for each kind of processor, which is chosen where it runs.
_KINDS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    _KINDS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4"]}


def main() -> int:
    """Exit status 1 with one line if it cannot be compiled: models run without it."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        print("native: no C++ compiler; attention runs without its kernel", file=sys.stderr)
        return 1
    sources = LIBRARY.parent
    with TemporaryDirectory(dir=sources) as folder:
        objects = [str(Path(folder, f"{kind}.o")) for kind in _KINDS]
        try:
            for (kind, flags), target in zip(_KINDS.items(), objects, strict=True):
                command = [compiler, *_FLAGS, *flags, f"-DATTEND=attend_{kind}", "-c"]
                subprocess.run([*command, str(sources / "attend.cpp"), "-o", target], check=True)
            linked = Path(folder, LIBRARY.name)
            command = [compiler, *_FLAGS, "-shared", str(sources / "operators.cpp"), *objects]
            subprocess.run([*command, "-o", str(linked)], check=True)
            linked.replace(LIBRARY)
        except subprocess.CalledProcessError as exc:
            print(
                f"native: {compiler} failed; attention runs without its kernel: {exc}",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
