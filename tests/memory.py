"""Memory: a bound on what a test may take, and what another process has taken."""

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


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
        status = (process / "status").read_text()
        resident_kb, threads = (
            int(re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[1])
            for field in ("VmRSS", "Threads")
        )
        return cls(resident_kb * 1024, threads, len(list((process / "fd").iterdir())))
