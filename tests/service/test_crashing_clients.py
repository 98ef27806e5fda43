"""Clients that crash at any point of a request, and bodies in absurdly small pieces.

Afterwards the counts add up, nothing is left behind, and a good request gets the right answer.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.http.middleware import ObserveRequests
from service.monitor.monitor import Monitor
from service.store.memory import MemoryStore
from service.telemetry.metrics import Metrics
from tests.conftest import DEEPVIT
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.memory import bounded_growth
from tests.support.server import LARGEST_BATCH, Server, running_server

CLIENTS = 400
MAX_UPLOAD_BYTES = 200_000


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    """A server of this module alone, whose counts are read."""
    with running_server(
        repository, max_upload_bytes=MAX_UPLOAD_BYTES, max_batch_size=LARGEST_BATCH
    ) as running:
        yield running


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=60)


def reset(connection: socket.socket) -> None:
    """Close as a crash does: with a RST, after which nothing is sent or read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def request(path: str, body: bytes, *, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + body


Crash = Callable[[socket.socket, bytes, random.Random], None]


def half_a_header(connection: socket.socket, whole: bytes, chance: random.Random) -> None:
    connection.sendall(whole[: chance.randrange(1, whole.index(b"\r\n\r\n"))])
    connection.close()


def half_a_body(connection: socket.socket, whole: bytes, chance: random.Random) -> None:
    connection.sendall(whole[: chance.randrange(whole.index(b"\r\n\r\n") + 4, len(whole))])
    connection.close()


def reset_in_the_body(connection: socket.socket, whole: bytes, chance: random.Random) -> None:
    connection.sendall(whole[: chance.randrange(whole.index(b"\r\n\r\n") + 4, len(whole))])
    reset(connection)


def close_after_sending(connection: socket.socket, whole: bytes, _: random.Random) -> None:
    connection.sendall(whole)
    connection.close()


def reset_after_sending(connection: socket.socket, whole: bytes, _: random.Random) -> None:
    connection.sendall(whole)
    reset(connection)


def reset_in_the_answer(connection: socket.socket, whole: bytes, chance: random.Random) -> None:
    connection.sendall(whole)
    assert connection.recv(chance.randrange(1, 200)).startswith(b"H")
    reset(connection)


def one_request_after_the_other(
    connection: socket.socket, whole: bytes, chance: random.Random
) -> None:
    """Pipelined requests, no answer read, and the last request cut off."""
    connection.sendall(whole * 3 + whole[: chance.randrange(1, len(whole))])
    reset(connection)


def a_drip(connection: socket.socket, whole: bytes, chance: random.Random) -> None:
    """A request sent byte by byte, then broken off."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in whole[: chance.randrange(1, 600)]:
        connection.send(bytes([byte]))
    reset(connection)


def nothing(connection: socket.socket, _: bytes, chance: random.Random) -> None:
    (reset if chance.random() < 0.5 else socket.socket.close)(connection)


def noise(connection: socket.socket, _: bytes, chance: random.Random) -> None:
    """Bytes that are not HTTP; the server may well close first."""
    connection.sendall(chance.randbytes(chance.randrange(1, 4000)))
    connection.close()


CRASHES: list[Crash] = [
    half_a_header,
    half_a_body,
    reset_in_the_body,
    close_after_sending,
    reset_after_sending,
    reset_in_the_answer,
    one_request_after_the_other,
    a_drip,
    nothing,
    noise,
]


def test_clients_that_crash_anywhere_leave_counts_that_add_up_and_no_trace(
    server: Server, photo: bytes
) -> None:
    """Hundreds of clients at once, and good requests between them, which are all answered."""
    wanted = [
        request("/classify", photo),
        request("/classify?attention=true&similarity=true", photo),
        request("/classify?model=vit16-cifar10", photo[:-100]),
        request(f"/v2/models/{DEEPVIT}/infer", b'{"inputs": []}'),
        request("/classify", photo, more="Expect: 100-continue\r\n"),
    ]

    def crash(number: int) -> None:
        chance = random.Random(number)
        connection = connect(server)
        try:
            CRASHES[number % len(CRASHES)](connection, chance.choice(wanted), chance)
        except ConnectionError:  # the server closed first
            reset(connection)

    with server.client() as client:
        before = answers_of_both_models(client, photo)
        files = open_files(server)
        over = threading.Event()

        def good(_: int) -> set[int]:
            statuses = set()
            while not over.is_set():
                statuses.add(client.post("/classify", files={"image": photo}).status_code)
            return statuses

        with ThreadPoolExecutor(26) as pool:
            between = [pool.submit(good, index) for index in range(2)]
            try:
                list(pool.map(crash, range(CLIENTS)))
            finally:
                over.set()
            assert [future.result() for future in between] == [{200}, {200}]
        counts = settled_counts(client)
        assert counts["failed"] == counts["expired"] == 0
        metrics = client.get("/metrics").text
        assert 'status="499"' in metrics  # they were there
        assert 'status="5' not in metrics
        assert answers_of_both_models(client, photo) == before
        while open_files(server) > files + 2:  # those of the two good clients may live on
            assert client.get("/livez").status_code == 200
    assert "Traceback" not in "".join(server.log)


def test_a_connection_that_closes_during_an_answer_is_no_server_error() -> None:
    """uvloop's transports raise their own error then, in a moment that real clients rarely hit."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("answer")(scope, receive, send)

    async def answer(error: Exception) -> None:
        async def send(_: Message) -> None:
            raise error

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await ObserveRequests(app, Metrics([], MemoryStore(1, 1), Monitor([])))(
            scope, receive, send
        )

    asyncio.run(answer(RuntimeError("unable to perform operation; the handler is closed")))
    with pytest.raises(RuntimeError, match="Unexpected"):
        asyncio.run(answer(RuntimeError("Unexpected ASGI message")))


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def in_single_bytes(body: bytes) -> Iterator[bytes]:
    for byte in body:
        yield bytes([byte])


@pytest.mark.parametrize("path", ["/classify", f"/v2/models/{DEEPVIT}/infer"])
def test_a_body_in_one_byte_chunks_is_read_or_refused_in_little_memory(
    server: Server, photo: bytes, path: str
) -> None:
    """Tens of thousands of chunks that fit, and one more than the limit allows."""
    kind = {"Content-Type": "image/jpeg"}
    with server.client() as client:
        before = answers_of_both_models(client, photo)
        whole = client.post(path, content=photo, headers=kind)
        with bounded_growth(server.process.pid, 100):
            pieces = client.post(path, content=in_single_bytes(photo), headers=kind)
            assert pieces.status_code == whole.status_code
            if path == "/classify":
                assert (
                    pieces.json()["results"][0]["predictions"]
                    == (whole.json()["results"][0]["predictions"])
                )
            too_many = client.post(
                path, content=in_single_bytes(bytes(MAX_UPLOAD_BYTES + 1)), headers=kind
            )
            assert too_many.status_code == 413
        assert answers_of_both_models(client, photo) == before
