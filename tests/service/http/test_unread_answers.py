"""Clients that ask for large answers and never read them, over real sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.support.memory import bounded_growth
from tests.support.server import LARGEST_BATCH, Server, running_server
from tests.support.waiting import until

MIB = 2**20
SETTINGS = {"max_answer_bytes": 8 * MIB, "max_unsent_bytes": 16 * MIB, "write_timeout_s": 2}


@contextmanager
def deaf(server: Server, target: str) -> Iterator[socket.socket]:
    """A client that asks, and takes next to nothing into its buffers."""
    address = urlsplit(server.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((address.hostname, address.port))
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield connection


def connections(server: Server) -> int:
    process = psutil.Process(server.process.pid)
    return len([one for one in process.net_connections("tcp") if one.raddr])


def test_clients_that_never_read_are_cut_off_and_take_bounded_memory(
    repository: Path, photo: bytes
) -> None:
    """60 answers of 4.3 MiB, of which 16 MiB are kept."""
    with (
        running_server(repository, **SETTINGS, max_batch_size=LARGEST_BATCH) as server,
        server.client() as client,
    ):
        found = client.post("/classify", files={"image": photo}).json()["results"][0]
        target = f"/attention-maps?id={found['id']}&head=all&query=all"
        for _ in range(3):
            whole = client.get(target)
            assert whole.status_code == 200
        with bounded_growth(server.process.pid, 130), ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(deaf(server, target))
                assert client.get("/livez").status_code == 200
            until(lambda: 'reason="answers-unread"} 0.0' not in client.get("/metrics").text)
            good = client.post("/classify", files={"image": photo}).json()["results"][0]
            assert good["predictions"] == found["predictions"]
            until(lambda: connections(server) <= 1)  # our own
        assert client.get(target).content == whole.content
    assert "Traceback" not in "".join(server.log)
