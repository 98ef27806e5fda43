"""Pipelined requests: answered in order, however they arrive, and few are begun ahead."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.memory import bounded_growth
from tests.support.server import LARGEST_BATCH, Server, running_server
from tests.support.sockets import connected, read_all, statuses

MANY = 4000  # of the smallest requests; they fit one read of the server
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
CLOSING = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def flood(connection: socket.socket) -> None:
    connection.sendall(b"GET /x HTTP/1.1\r\n\r\n" * MANY)


def test_many_requests_in_one_packet_take_little_memory_and_no_turn_of_others(
    repository: Path, photo: bytes
) -> None:
    with (
        running_server(repository, max_batch_size=LARGEST_BATCH) as server,
        server.client() as client,
    ):
        for _ in range(3):
            assert client.post("/classify", files={"image": photo}).status_code == 200
        with ExitStack() as stack, bounded_growth(server.process.pid, 20):
            connections = [stack.enter_context(connected(server)) for _ in range(5)]
            for connection in connections:
                flood(connection)
            for _ in range(5):
                assert client.get("/livez").status_code == 200
                assert client.post("/classify", files={"image": photo}).status_code == 200
            for connection in connections[1:]:
                connection.close()
            connections[0].sendall(CLOSING)
            assert statuses(read_all(connections[0])) == [404] * MANY + [200]


def chunked(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return (
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )


def whole(path: bytes, kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s" % (
        path,
        kind,
        len(body),
        more,
        body,
    )


def requests(photo: bytes) -> list[tuple[bytes, int]]:
    """Requests in whose bodies others seem to begin or end, with the statuses of their answers."""
    smuggled = b"\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n" * 20
    return [
        (b"GET /livez HTTP/1.1\r\n\r\n", 200),
        (b"\r\n\r\nGET /models HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (whole(b"/classify", b"image/jpeg", photo), 200),
        (whole(b"/classify", b"image/jpeg", photo + smuggled), 200),
        (chunked([photo[:1000], photo[1000:], smuggled, b"0\r\n\r\n" * 9]), 200),
        (whole(b"/classify", b"text/csv", smuggled), 415),
        (
            whole(b"/classify", b"image/jpeg", photo, b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            200,
        ),
        (b"GET /x HTTP/1.1\r\n\r\n", 404),
        (b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_right_wherever_the_bytes_are_cut(
    server: Server, photo: bytes, seed: int
) -> None:
    chance = random.Random(seed)
    chosen = chance.choices(requests(photo), k=40)
    sent = b"".join(request for request, _ in chosen) + CLOSING
    cuts = sorted(chance.randrange(len(sent)) for _ in range(200 * seed))
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            connection.sendall(sent[start:end])
        assert statuses(read_all(connection)) == [status for _, status in chosen] + [200]


def test_a_client_that_leaves_its_pipeline_is_forgotten(
    server: Server, client: httpx.Client
) -> None:
    for _ in range(5):
        with connected(server) as connection:
            flood(connection)
        assert client.get("/livez").status_code == 200
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize("length", [b"", b"abc", b"-1", b"1" * 30, b"1, 1", b"\xb2"])
def test_a_length_that_is_none_ends_a_pipeline_with_a_400(server: Server, length: bytes) -> None:
    wrong = b"POST /classify HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\nx"
    with connected(server, b"GET /livez HTTP/1.1\r\n\r\n" + wrong) as connection:
        assert statuses(read_all(connection)) == [200, 400]
    assert "Traceback" not in "".join(server.log)
