"""Memory: bounds on what a test or another process may take, and what one has taken."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@contextmanager
def little_more(pid: int, megabytes: int) -> Iterator[None]:
    """Asserts that another process never holds more than this beyond what it holds now."""
    if sys.platform != "linux":
        pytest.skip("reads the memory of a process from /proc")
    process = Path(f"/proc/{pid}")
    (process / "clear_refs").write_text("5")  # the peak starts anew
    before = _peak_bytes(process)
    yield
    taken = _peak_bytes(process) - before
    assert taken < megabytes * 2**20, f"{taken / 2**20:.0f} MB"


def _peak_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Taking more than this beyond what is taken now fails."""
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
    """What another process holds."""

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
