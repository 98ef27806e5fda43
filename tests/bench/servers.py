"""Servers in this run: how each is started, asked, and paused while others run."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from service import native
from tests.bench.client import ask
from tests.bench.peers.given import Given, Setup
from tests.bench.photos import photos
from tests.bench.startup import alone, free_port
from tests.support.processes import family
from tests.support.server import ROOT

_ONE_IMAGE = Setup()
OURS, OURS_MODULE = "ours", "service"
_PREDICTION = re.compile(rb'"label": ?"([^"]*)", ?"probability": ?([-+.\de]+)')
_START_S, _STOP_S, _POLL_S, _SAMPLE_PX = 120, 30, 0.05, 32
_TOLERANCE = 1e-3  # of a probability, between two ways to compute it


class NotServing(Exception):
    """A server does not start, or does not answer as ours does; the message says why."""


@dataclass(frozen=True)
class Kind:
    """A server that `python -m module` starts; every one takes a JPEG as the request's body."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()  # of ours; a peer is given its setup
    path: str = "/predict"
    headers: str = ""
    setup: Setup = _ONE_IMAGE
    kernels: bool = False  # whether a peer registers our kernels
    python: str = sys.executable
    environment: tuple[tuple[str, str], ...] = ()

    def request(self, jpeg: bytes) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: image/jpeg\r\n"
            f"{self.headers}Content-Length: {len(jpeg)}\r\n\r\n"
        )
        return head.encode() + jpeg


@dataclass(frozen=True)
class Contestant:
    """A server that has been started."""

    kind: Kind
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def cpu_s(self) -> float:
        """Processor time so far of the server and its descendants."""
        times = (process.cpu_times() for process in self._processes())
        return sum(spent.user + spent.system for spent in times)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Raises `NotServing` if it cannot be paused again."""
        for process in self._processes():
            _send(process, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> bool:
        """Returns when all of its processes have stopped: whether any had not.

        Raises `NotServing` if one does not stop.
        """
        end = time.monotonic() + _STOP_S
        found = False
        while awake := [process for process in self._processes() if not _has_stopped(process)]:
            found = True
            if time.monotonic() > end:
                raise NotServing(f"{self.kind.name} cannot be paused")
            for process in awake:
                _send(process, signal.SIGSTOP)
            time.sleep(_POLL_S)
        return found

    def end(self) -> None:
        processes = self._processes()
        for process in processes:
            _send(process, signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(processes)

    def _processes(self) -> list[psutil.Process]:
        """The server and its descendants, some of which have process groups of their own."""
        return [] if self.process.poll() is not None else family(self.process.pid)

    def first_answers(self, jpegs: Sequence[bytes]) -> list[tuple[str, float]]:
        """The first label and its probability for each image. Raises `NotServing`."""
        found = []
        for jpeg in jpegs:
            answer = ask(self.port, self.kind.request(jpeg))
            if not (first := _PREDICTION.search(answer)):
                raise NotServing(f"{self.kind.name} answers {answer[:200]!r}")
            found.append((first[1].decode(), float(first[2])))
        return found


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _has_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def alone_awake(contestant: Contestant, contestants: Sequence[Contestant]) -> Iterator[None]:
    """One runs, and none of the others does, whoever may have woken it."""
    for other in contestants:
        if other is not contestant and other.pause():
            print(f"{other.kind.name} was awake, and is paused again", flush=True)
    with contestant.awake():
        yield


@contextmanager
def running(
    folder: Path, kinds: Sequence[Kind], skipped: dict[str, str] | None = None
) -> Iterator[list[Contestant]]:
    """All servers with one version of a model, ready and paused, so that they take no time.

    Those that do not start are put into `skipped` with the reason; without it, raises `NotServing`.
    """
    with ExitStack() as stack:
        repository = stack.enter_context(alone(folder))
        contestants = []
        for kind in kinds:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            log = place.with_suffix(".log")
            stack.callback(log.unlink)
            contestant = _start(kind, folder, repository, place, log)
            stack.callback(contestant.end)
            if _answers(contestant):
                contestant.pause()
                contestants.append(contestant)
                continue
            reason = f"it does not answer: {log.read_text(errors='replace').strip()[-300:]}"
            if skipped is None:
                raise NotServing(reason)
            skipped[kind.name] = reason
            contestant.end()
        yield contestants


def _answers(contestant: Contestant) -> bool:
    """Waits for an answer to an image: some servers say that they are ready when they are not."""
    request = contestant.kind.request(photos(_SAMPLE_PX)[0])
    end = time.monotonic() + _START_S
    while time.monotonic() < end and contestant.process.poll() is None:
        with suppress(OSError):
            if ask(contestant.port, request).split()[1:2] == [b"200"]:
                return True
        time.sleep(_POLL_S)
    return False


def check(
    contestant: Contestant, expected: Sequence[tuple[str, float]], jpegs: Sequence[bytes]
) -> None:
    """Raises `NotServing` if a first answer is another one than expected."""
    with contestant.awake():
        found = contestant.first_answers(jpegs)
    for (label, probability), (other, its) in zip(expected, found, strict=True):
        if label != other or abs(probability - its) > _TOLERANCE:
            wrong = f"{other} with {its:.4f}, not {label} with {probability:.4f}"
            raise NotServing(f"{contestant.kind.name} answers {wrong}")


def _start(kind: Kind, folder: Path, repository: Path, place: Path, log: Path) -> Contestant:
    port = free_port()
    given = Given(folder, port, place, kind.setup, native.LIBRARY if kind.kernels else None)
    arguments: tuple[str, ...] = ()
    if kind.module == OURS_MODULE:
        arguments = ("--port", str(port), "--model-repository", str(repository), *kind.arguments)
    environment = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [kind.python, "-m", kind.module, *arguments],
            cwd=ROOT,
            env=environment | given.environment() | dict(kind.environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Contestant(kind, port, process)
