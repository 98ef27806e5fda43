"""Memory of processes: limits, peaks and current use."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@contextmanager
def bounded_growth(pid: int, megabytes: int) -> Iterator[None]:
    """Assert that the peak memory of another process grows by less than this in the block."""
    if sys.platform != "linux":
        pytest.skip("reads the memory of a process from /proc")
    process = Path(f"/proc/{pid}")
    (process / "clear_refs").write_text("5")  # resets the peak
    before = _peak_bytes(process)
    yield
    growth = _peak_bytes(process) - before
    assert growth < megabytes * 2**20, f"{growth / 2**20:.0f} MB"


def _peak_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


@contextmanager
def limited_memory(megabytes: int) -> Iterator[None]:
    """In the block, this process can allocate no more than this beyond its present size."""
    if sys.platform != "linux":
        pytest.skip("reads the size of the process from /proc")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass(frozen=True)
class Footprint:
    """Resources that another process uses."""

    resident_bytes: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        process = Path(f"/proc/{pid}")
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return cls(
            resident_bytes=int(status["VmRSS"].removesuffix("kB")) * 1024,
            threads=int(status["Threads"]),
            files=len(list((process / "fd").iterdir())),
        )


def resident_bytes(pid: int) -> int:
    """What a process has in memory now; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * resource.getpagesize()


def processor_s(pid: int) -> float:
    """The processor time that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def processes_under(pid: int) -> set[int]:
    """The processes that another one has started, on any of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for one in lists for child in one.read_text().split()}
