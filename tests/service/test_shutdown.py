"""SIGTERM at bad moments: the process ends with status 0 and in time."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import DEEPVIT
from tests.support.server import ROOT, Server, running_server
from tests.support.sockets import connected
from tests.support.versions import add_version, copied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches the process in /proc")

DRAIN_S = 2
SLACK_S = 20  # of a slow, busy machine; with DRAIN_S still less than the default drain


@pytest.fixture
def server(repository: Path) -> Iterator[Server]:
    with running_server(repository, drain_delay_s=0, drain_timeout_s=DRAIN_S) as running:
        yield running


def end(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=DRAIN_S + SLACK_S) == 0


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def hears_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("moment", ["before the first model", "once a model has its threads"])
def test_while_models_are_loaded_and_warmed(repository: Path, moment: str) -> None:
    command = [sys.executable, "-m", "service", "--port", "0", "--model-repository"]
    with subprocess.Popen(
        [*command, str(repository)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        while not hears_sigterm(process.pid):
            assert process.poll() is None
        before = threads(process.pid)
        while moment != "before the first model" and threads(process.pid) < before + 2:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SLACK_S)
    assert process.returncode == 0, errors
    assert errors == ""


def test_while_a_version_is_loaded_on_request(repository: Path, tmp_path: Path) -> None:
    copied(repository, tmp_path)
    with (
        running_server(tmp_path, drain_delay_s=0, drain_timeout_s=DRAIN_S) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        add_version(repository, tmp_path)
        assert client.get("/models").status_code == 200  # starts every thread that requests need
        before = threads(server.process.pid)
        loading = pool.submit(client.post, f"/v2/repository/models/{DEEPVIT}/load")
        while threads(server.process.pid) == before:
            assert not loading.done()
        end(server)
        error = loading.exception()
        if error:
            assert isinstance(error, httpx.TransportError)
        else:
            assert loading.result().status_code in (200, 503)


def test_with_idle_connections_that_are_kept_alive(server: Server, photo: bytes) -> None:
    with server.client() as one, server.client() as other, connected(server):
        assert one.post("/classify", files={"image": photo}).status_code == 200
        assert other.get("/livez").status_code == 200
        end(server)
    assert "Traceback" not in "".join(server.log)


def test_with_a_connection_that_is_stuck_in_its_headers(server: Server) -> None:
    with connected(server) as stuck:
        stuck.sendall(b"POST /classify HTTP/1.1\r\nHost:")
        end(server)


@pytest.mark.parametrize("path", ["/classify", f"/v2/models/{DEEPVIT}/infer"])
def test_with_a_connection_that_is_stuck_in_its_body(server: Server, path: str) -> None:
    with connected(server) as stuck, server.client() as client:
        stuck.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\nhalf".encode()
        )
        assert stuck.recv(100).startswith(b"HTTP/1.1 100")  # the server is reading the body
        assert client.get("/livez").status_code == 200
        end(server)


def test_with_a_client_that_does_not_read_its_answer(server: Server, photo: bytes) -> None:
    with server.client() as client, connected(server) as deaf:
        found = client.post("/classify", files={"image": photo}).json()
        whole = f"/attention-maps?id={found['results'][0]['id']}&head=all&query=all"
        deaf.sendall(f"GET {whole} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert deaf.recv(9) == b"HTTP/1.1 "
        end(server)


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_with_a_client_that_was_refused_and_still_sends(repository: Path, connection: str) -> None:
    """What it goes on to send is discarded, but not for as long as when nobody waits."""
    with (
        running_server(repository, drain_delay_s=0, keep_alive_s=60) as server,
        connected(server) as refused,
    ):
        refused.sendall(
            f"POST /classify?top_k=0 HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
        assert refused.recv(13) == b"HTTP/1.1 422 "
        end(server)
    assert "timeout graceful shutdown exceeded" not in "".join(server.log)
