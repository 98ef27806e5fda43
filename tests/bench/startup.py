"""The cost of a model before its first request: time until ready, memory, files."""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import models
from tests.support.memory import Footprint
from tests.support.server import ROOT

_STARTS = 5
_POLL_S = 0.005
_TIMEOUT_S = 120


def figures(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Name, figure and unit of each cost of one version of a model."""
    with alone(folder) as repository:
        ready = [_ready(repository) for _ in range(_STARTS)]
    yield "start to ready", round(statistics.median(s for s, _ in ready), 2), "s"
    yield "resident when ready", round(statistics.median(b for _, b in ready) / 2**20), "mib"
    command = [sys.executable, "-m", "tests.footprint", str(folder)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in printed.splitlines():
        mib, _, what = line.strip().partition(" MiB  ")
        yield f"engine alone, {what}", float(mib), "mib"
    for file in sorted(folder.iterdir()):
        yield file.name, round(file.stat().st_size / 2**20, 2), "mib"


@contextmanager
def alone(folder: Path) -> Iterator[Path]:
    """A model repository that contains this version only."""
    with tempfile.TemporaryDirectory() as place:
        name = models.manifest(folder).name
        shutil.copytree(folder, Path(place) / name / folder.name)
        yield Path(place)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a GET is answered with 200; raises `SystemExit` if that never happens."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
    end = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(request)
                if connection.recv(64).split()[1:2] == [b"200"]:
                    return
        except OSError:
            pass
        time.sleep(_POLL_S)
    raise SystemExit(f"no 200 from {path} of {process.args!r}")


def _ready(repository: Path) -> tuple[float, int]:
    """Seconds from the start of the process until /readyz is 200, and resident bytes then."""
    port = free_port()
    command = [sys.executable, "-m", "service", "--port", str(port)]
    environment = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--model-repository", str(repository)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(port, "/readyz", process)
            seconds = time.perf_counter() - started
            return seconds, Footprint.of(process.pid).resident_bytes
        finally:
            process.kill()
