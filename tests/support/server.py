"""A real server process, forked or started with the command that users run."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from types import MappingProxyType

import httpx

from tests.support.forking import Forked

ROOT = Path(__file__).parents[2]
_LISTENING = re.compile(r"running on (http://\S+)")
_START_TIMEOUT_S = 60
LARGEST_BATCH = 32  # of a service that is not told otherwise


@dataclass
class Server:
    process: Popen[str] | Forked
    url: str = ""
    log: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment, with these settings alone."""
    kept = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    return kept | {f"DEEPVIT_{key.upper()}": str(value) for key, value in settings.items()}


def start(
    module: str,
    port: int,
    repository: Path,
    settings: Mapping[str, object],
    stderr: int = PIPE,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Popen[str]:
    """Begin to serve; `settings` are passed as DEEPVIT_ variables, beside `others`.

    What it logs can be read.
    """
    return Popen(
        [sys.executable, "-m", module, *_arguments(port, repository)],
        cwd=ROOT,
        env={**environment(settings), **others},
        stderr=stderr,
        stdout=DEVNULL,
        text=True,
    )


@contextmanager
def running_server(repository: Path, **settings: object) -> Iterator[Server]:
    """Serve a model repository on a free port; `settings` are passed as DEEPVIT_ variables.

    Unless told otherwise, one thread runs a model, which saves measuring what is fastest, and
    batches are small, because the first one takes most of the processor time of a start. Tests
    that bound memory take the service's own largest batch, whose first run has grown the heap.
    """
    given = environment({"intra_op_threads": 1, "max_batch_size": 4, **settings})
    with _running(Forked(_arguments(0, repository), ROOT, given)) as server:
        yield server


def failed_start(*arguments: str, **settings: object) -> tuple[int, str]:
    """The exit status of a start that has to fail, and what it says on standard error."""
    given = ["--port", "0", *arguments]
    return Forked(given, ROOT, environment(settings)).finish(_START_TIMEOUT_S)


@contextmanager
def running_command(repository: Path, **settings: object) -> Iterator[Server]:
    """The same by the command, for what depends on a process's name or on how it begins.

    Its batches are as large as the service makes them.
    """
    settings = {"intra_op_threads": 1, **settings}
    with _running(start("service", 0, repository, settings)) as server:
        yield server


@contextmanager
def _running(process: Popen[str] | Forked) -> Iterator[Server]:
    server = Server(process)
    listening = threading.Event()
    reader = threading.Thread(target=_read, args=(server, listening), daemon=True)
    reader.start()
    try:
        listening.wait(_START_TIMEOUT_S)
        if not server.url:
            raise RuntimeError("the server did not start:\n" + "".join(server.log))
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()


def _arguments(port: int, repository: Path) -> list[str]:
    return ["--port", str(port), "--model-repository", str(repository)]


def _read(server: Server, listening: threading.Event) -> None:
    """Collect the log; its line with the address means that requests are answered."""
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.log.append(line)
        if found := _LISTENING.search(line):
            server.url = found[1]
            listening.set()
    listening.set()
    server.process.stderr.close()
