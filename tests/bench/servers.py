"""The servers to compare: how each is started, requested, and paused while others run."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.inference.cpus import available_cpus
from tests.bench.startup import alone, free_port, wait_until
from tests.support.server import ROOT

OURS, OURS_MODULE = "ours", "service"
_BOUNDARY = "bench"


@dataclass(frozen=True)
class Kind:
    """A server that `python -m module` starts; `form` if its handler takes a multipart form."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    path: str = "/predict"
    ready: str = "/docs"
    form: bool = False

    def request(self, jpeg: bytes) -> bytes:
        kind, body = "image/jpeg", jpeg
        if self.form:
            kind = f"multipart/form-data; boundary={_BOUNDARY}"
            field = "request" if "litserve" in self.module else "image"
            start = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; '
                'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
            )
            body = start.encode() + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


_PEERS = "tests.bench.peers."
KINDS = (
    Kind(OURS, OURS_MODULE, path="/classify", ready="/readyz"),
    Kind("FastAPI, PyTorch", f"{_PEERS}fastapi_torch", form=True),
    Kind("FastAPI, ONNX Runtime", f"{_PEERS}fastapi_onnx", form=True),
    Kind("FastAPI async, ONNX Runtime", f"{_PEERS}fastapi_async_onnx"),
    Kind("LitServe", f"{_PEERS}litserve_onnx", ready="/health", form=True),
    Kind("mosec", f"{_PEERS}mosec_onnx", ("--batch-timeout-ms", "10"), ready="/"),
)


@dataclass(frozen=True)
class Contestant:
    kind: Kind
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def cpu_s(self) -> float:
        """Processor time so far of the server and its children."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # the process has ended
                continue
            if int(fields[2]) == self.process.pid:  # its process group
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def awake(self) -> Iterator[None]:
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


@contextmanager
def running(folder: Path, kinds: Sequence[Kind]) -> Iterator[list[Contestant]]:
    """All servers with one version of a model, ready and paused, so that they take no time."""
    with ExitStack() as stack:
        repository = stack.enter_context(alone(folder))
        log = stack.enter_context(tempfile.TemporaryFile())
        contestants = []
        for kind in kinds:
            contestant = _start(kind, folder, repository, log.fileno())
            stack.callback(_end, contestant)
            wait_until(contestant.port, kind.ready, contestant.process)
            os.killpg(contestant.process.pid, signal.SIGSTOP)
            contestants.append(contestant)
        yield contestants


def _start(kind: Kind, folder: Path, repository: Path, log: int) -> Contestant:
    port = free_port()
    if kind.module == OURS_MODULE:
        arguments = ["--port", str(port), "--model-repository", str(repository)]
    else:
        threads = str(available_cpus())
        arguments = [str(folder), "--port", str(port), "--threads", threads]
    environment = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    process = subprocess.Popen(
        [sys.executable, "-m", kind.module, *arguments, *kind.arguments],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a process group, which is paused as a whole
    )
    return Contestant(kind, port, process)


def _end(contestant: Contestant) -> None:
    os.killpg(contestant.process.pid, signal.SIGKILL)
    contestant.process.wait()
