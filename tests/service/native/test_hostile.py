"""Graphs that nobody's export writes: each is refused with a message, and no memory is misused.

They run in another process, as a fault in the kernels ends it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from service import native
from tests.service.native import bf16_graphs, graphs, int8_graphs
from tests.support.server import ROOT

# So that the first misuse of memory, or undefined behaviour, ends the process.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
OPTIONS = "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1"


@pytest.mark.usefixtures("library")
def test_every_graph_is_computed_or_refused(tmp_path: Path) -> None:
    cases = all_cases()
    graphs.save(cases, tmp_path)
    assert_outcomes(cases, run(native.LIBRARY, tmp_path))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for a library that is compiled with sanitizers; its path is LIBRARY."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        pytest.skip("there is no C++ compiler")
    runtimes = [found_by(compiler, name) for name in ("libasan.so", "libstdc++.so")]
    if not all(runtimes):
        pytest.skip(f"{compiler} has no libasan.so")
    folder = tmp_path_factory.mktemp("sanitized")
    sources = shutil.copytree(
        native.LIBRARY.parent, folder / "service" / "native", ignore=shutil.ignore_patterns("*.so")
    )
    shutil.copy(ROOT / "service" / "__init__.py", folder / "service")
    # Not optimised, so that no access is left out, and four times as fast to compile.
    flags = {"CXXFLAGS": f"-O0 -g1 -w {SANITIZERS}", "NVCC": "no-such-nvcc"}
    subprocess.run(
        [sys.executable, "-m", "service.native"], cwd=folder, env=os.environ | flags, check=True
    )
    return {
        "LIBRARY": str(sources / native.LIBRARY.name),
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": OPTIONS,
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def test_no_graph_makes_the_kernels_misuse_memory(
    sanitized: dict[str, str], tmp_path: Path
) -> None:
    """Nor do what C++ leaves undefined, such as overflows of signed integers."""
    cases = all_cases()
    graphs.save(cases, tmp_path)
    assert_outcomes(cases, run(Path(sanitized["LIBRARY"]), tmp_path, sanitized))


def all_cases() -> dict[str, graphs.Case]:
    sources = (graphs, bf16_graphs, int8_graphs)
    return {name: case for one in sources for name, case in (one.sound() | one.hostile()).items()}


def found_by(compiler: str, library: str) -> str:
    """The path of one of a compiler's libraries; nothing if it has none of this name."""
    command = [compiler, f"-print-file-name={library}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found if Path(found).is_absolute() else ""


def run(
    library: Path, folder: Path, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.service.native.one_operator", str(library), str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_outcomes(
    cases: Mapping[str, graphs.Case], ran: subprocess.CompletedProcess[str]
) -> None:
    """Of each graph, on each copy of the kernels."""
    assert ran.returncode == 0, f"{ran.stdout[-200:]}\n{ran.stderr[-10_000:]}"
    outcomes = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    copies = {copy for copy, _, _ in outcomes}
    assert "baseline" in copies
    assert len(outcomes) == len(copies) * len(cases)
    for copy, name, became in outcomes:
        expected = cases[name].becomes
        assert expected in became, f"{name} on {copy}: {became}"
        assert became.startswith(graphs.RAN) == (expected == graphs.RAN), f"{name}: {became}"
