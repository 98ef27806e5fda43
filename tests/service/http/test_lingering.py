"""Refusals of requests whose bodies were not read: they arrive, and cost nothing that lasts."""

import socket
from pathlib import Path

import psutil
import pytest

from service.http.lingering import MAX_LINGER_BYTES
from tests.support.server import Server, running_server
from tests.support.sockets import connected, read_all, statuses
from tests.support.waiting import until

LARGE = 20 * 2**20  # bytes; more than the buffers of a connection hold
TOO_LARGE = 40 * 2**20
CLOSING = {"1.1": b"HTTP/1.1\r\nConnection: close\r\n", "1.0": b"HTTP/1.0\r\n"}
KEPT = b"HTTP/1.1\r\nConnection: keep-alive\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
REFUSED = [
    ("/classify?model=none", "image/jpeg", LARGE, 404),
    ("/classify?top_k=0", "image/jpeg", LARGE, 422),
    ("/classify", "text/csv", LARGE, 415),
    ("/classify", "image/jpeg", TOO_LARGE, 413),
    ("/models", "image/jpeg", LARGE, 405),
    ("/v2/models/none/infer", "application/json", LARGE, 404),
]

refusals = pytest.mark.parametrize(("path", "kind", "size", "status"), REFUSED)


def post(path: str, version: bytes, kind: str, framing: bytes) -> bytes:
    """The request line and headers; `version` may end with headers."""
    start = f"POST {path} ".encode() + version
    return start + f"Host: x\r\nContent-Type: {kind}\r\n".encode() + framing + b"\r\n"


def declared(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


def refused(version: bytes, size: int) -> bytes:
    return post("/classify?top_k=0", version, "image/jpeg", declared(size))


def send(connection: socket.socket, size: int) -> None:
    for _ in range(size // 2**20):
        connection.sendall(bytes(2**20))


@refusals
@pytest.mark.parametrize("version", CLOSING.values(), ids=CLOSING)
def test_a_client_may_send_everything_before_it_reads(
    server: Server, path: str, kind: str, size: int, status: int, version: bytes
) -> None:
    with connected(server, post(path, version, kind, declared(size)) + bytes(size)) as connection:
        received = read_all(connection)
    assert statuses(received) == [status]
    assert b"\r\nconnection: close\r\n" in received


@refusals
def test_a_connection_that_is_kept_alive_goes_on(
    server: Server, path: str, kind: str, size: int, status: int
) -> None:
    request = post(path, KEPT, kind, declared(size)) + bytes(size)
    with connected(server, request + request + LAST) as connection:
        assert statuses(read_all(connection)) == [status, status, 200]


@pytest.mark.parametrize("version", [*CLOSING.values(), KEPT], ids=[*CLOSING, "kept alive"])
def test_a_body_without_a_length(server: Server, version: bytes) -> None:
    request = post("/classify?top_k=0", version, "image/jpeg", b"Transfer-Encoding: chunked\r\n")
    body = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with connected(server, request + body * 20 + b"0\r\n\r\n" + LAST) as connection:
        assert statuses(read_all(connection)) == ([422, 200] if version == KEPT else [422])


def test_an_error_within_a_body_is_told(server: Server) -> None:
    """What follows cannot be understood, but is waited for."""
    request = post("/classify", KEPT, "image/jpeg", b"Transfer-Encoding: chunked\r\n")
    with connected(server, request + b"not a length\r\n" + bytes(LARGE)) as connection:
        assert statuses(read_all(connection)) == [400]


@pytest.mark.parametrize("version", [*CLOSING.values(), KEPT], ids=[*CLOSING, "kept alive"])
def test_a_body_that_goes_on_and_on_is_cut_off(server: Server, version: bytes) -> None:
    with (
        connected(server, refused(version, 2**40)) as connection,
        pytest.raises(OSError, match=r"reset|pipe"),
    ):
        send(connection, MAX_LINGER_BYTES + LARGE)


@pytest.mark.parametrize("version", [*CLOSING.values(), KEPT], ids=[*CLOSING, "kept alive"])
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "falls silent"])
def test_nothing_is_left_of_a_client_that(
    tiny_repository: Path, version: bytes, leaves: bool
) -> None:
    with running_server(tiny_repository, keep_alive_s=1) as server, server.client() as client:
        process = psutil.Process(server.process.pid)

        def connections() -> int:
            return len([c for c in process.net_connections("tcp") if c.raddr])

        with connected(server, refused(version, LARGE) + b"a part") as connection:
            assert statuses(connection.recv(13)) == [422]
            assert connections() == 1
            if leaves:
                connection.close()
            until(lambda: connections() == 0)
        assert client.get("/livez").status_code == 200
    assert "Traceback" not in "".join(server.log)
