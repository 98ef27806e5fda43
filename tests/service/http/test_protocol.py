"""Request lines and headers that are too large, never end or never come, over real sockets."""

import json
import re
import select
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.http.protocol import MAX_HEADERS, MAX_HEADERS_BYTES, MAX_URI_BYTES
from tests.support.server import Server, running_server
from tests.support.sockets import connected, read_all, statuses

LITTLE = 16 * 2**20  # bytes of memory that one request may take
ENDLESS = 64 * 2**20  # bytes that a client sends unless it is stopped


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and JSON body of the answer after which the server closes."""
    headers, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"connection: close" in headers.lower()
    found = re.match(rb"HTTP/1.1 (\d{3}) ", headers)
    assert found, headers
    return int(found[1]), json.loads(body)


def send_until_answered(connection: socket.socket, chunk: bytes) -> int:
    """The number of bytes sent before the answer came."""
    sent = 0
    while sent < ENDLESS and not select.select([connection], [], [], 0)[0]:
        sent += connection.send(chunk)
    return sent


def memory(server: Server) -> int:
    """The highest use of physical memory so far, in bytes."""
    if sys.platform != "linux":
        pytest.skip("reads the memory of the process from /proc")
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def works(client: httpx.Client, photo: bytes) -> bool:
    return client.post("/classify", files={"image": photo}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ([("X", "x" * (MAX_HEADERS_BYTES - 1000))], True),
        ([("X", "x" * MAX_HEADERS_BYTES)], False),
        ([("X", "x" * 2**20)], False),
        ([(f"X-{i}", "x" * 400) for i in range(90)], False),
        ([(f"X-{i}", "") for i in range(MAX_HEADERS - 10)], True),
        ([(f"X-{i}", "") for i in range(MAX_HEADERS)], False),
        ([(f"X-{i}", "x" * 1000) for i in range(1000)], False),
    ],
)
def test_large_headers_are_a_431(
    client: httpx.Client, headers: list[tuple[str, str]], fits: bool
) -> None:
    for path in ("/models", "/nothing", "/v2"):
        response = client.get(path, headers=headers)
        if fits:
            assert response.status_code == (404 if path == "/nothing" else 200)
        elif path == "/v2":
            assert response.status_code == 431
            assert response.json().keys() == {"error"}
        else:
            assert (response.status_code, response.json()["code"]) == (431, "headers-too-large")
            assert response.headers["content-type"] == "application/problem+json"
        assert client.get("/models").status_code == 200


@pytest.mark.parametrize("length", [9_000, 50_000, 2**20])
def test_a_long_address_is_a_414_and_not_repeated(server: Server, length: int) -> None:
    for filler in (b"x" * length, b"%e2%82%ac" * (length // 9), b"?" + b"a=b&" * (length // 4)):
        with connected(server, b"GET /" + filler + b" HTTP/1.1\r\nHost: x\r\n") as connection:
            connection.sendall(b"Connection: close\r\n\r\n")
            status, problem = answer(connection)
        assert (status, problem["code"]) == (414, "uri-too-long")
        assert len(problem["instance"]) <= 256


def test_an_address_that_just_fits_is_taken(client: httpx.Client) -> None:
    path = "/models?".ljust(MAX_URI_BYTES, "x")
    assert client.get(path).status_code == 200
    assert client.get(path + "x").status_code == 414


@pytest.mark.parametrize(
    ("begin", "chunk", "expected"),
    [
        (b"GET /models HTTP/1.1\r\nX: ", b"x" * 4096, (431, "headers-too-large")),
        (b"GET /models HTTP/1.1\r\n", b"X: y\r\n" * 500, (431, "headers-too-large")),
        (b"GET /models HTTP/1.1\r\n", b"x" * 4096, (431, "headers-too-large")),
        (b"GET /models HTTP/1.1\r\nX: ", b"x" * 100, (431, "headers-too-large")),
        (b"GET /", b"x" * 4096, (414, "uri-too-long")),
        (b"GET /%2", b"?#%//" * 999, (414, "uri-too-long")),
    ],
    ids=["value", "headers", "name", "small pieces", "address", "strange address"],
)
def test_headers_that_never_end_are_cut_off_in_little_memory(
    server: Server,
    client: httpx.Client,
    photo: bytes,
    begin: bytes,
    chunk: bytes,
    expected: tuple[int, str],
) -> None:
    assert works(client, photo)
    before = memory(server)
    with connected(server, begin) as connection:
        assert send_until_answered(connection, chunk) < ENDLESS
        status, problem = answer(connection)
    assert (status, problem["code"]) == expected
    assert memory(server) < before + LITTLE
    assert works(client, photo)


@pytest.mark.parametrize(
    ("begin", "chunk"),
    [
        (
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
            b"x" * 4096,
        ),
        (
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1;",
            b"x" * 4096,
        ),
        (b"", b"\r\n" * 2048),
    ],
    ids=["trailer", "chunk extension", "empty lines"],
)
def test_nothing_else_outside_bodies_goes_on_forever(
    server: Server, client: httpx.Client, photo: bytes, begin: bytes, chunk: bytes
) -> None:
    assert works(client, photo)
    before = memory(server)
    with connected(server, begin) as connection, pytest.raises(OSError, match=r"reset|pipe"):
        connection.sendall(chunk * (ENDLESS // len(chunk)))
    assert memory(server) < before + LITTLE
    assert works(client, photo)


def test_the_limits_are_for_each_request_of_a_connection(server: Server) -> None:
    """Two hundred pipelined requests whose headers are too large only together."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000 + b"\r\n"
    requests = (request + b"\r\n") * 199 + request + b"Connection: close\r\n\r\n"
    with connected(server, requests) as connection:
        assert statuses(read_all(connection)) == [200] * 200


def test_slow_clients_are_not_waited_for(tiny_repository: Path, photo: bytes) -> None:
    post = b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n"
    with (
        running_server(tiny_repository, keep_alive_s=2, request_timeout_s=2) as server,
        server.client() as client,
        ExitStack() as stack,
    ):
        silent, request_line, headers, body, form = (
            stack.enter_context(connected(server, begin))
            for begin in (
                b"",
                b"GET",
                b"GET /v2/x HTTP/1.1\r\nHost: x\r\nX-Requ",
                post + b"Content-Type: image/jpeg\r\n\r\nx",
                post + b"Content-Type: multipart/form-data; boundary=a\r\n\r\n--a\r\n",
            )
        )
        for connection in (silent, request_line):
            assert connection.recv(1) == b""
        assert answer(headers)[0] == 408
        for connection in (body, form):
            status, problem = answer(connection)
            assert (status, problem["code"]) == (408, "request-timeout")
        assert works(client, photo)
        metrics = client.get("/metrics").text
        assert 'deepvit_rejects_total{reason="request-timeout"} 3.0' in metrics
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /models HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /models HTTP/1.1\r\nX\0: y\r\n\r\n",
        b"GET /models HTTP/9\r\n\r\n",
        b"POST /models HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /models HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["no colon", "zero", "version", "negative length", "two lengths"],
)
def test_what_is_not_http_is_a_400(server: Server, client: httpx.Client, begin: bytes) -> None:
    with connected(server, begin) as connection:
        status, problem = answer(connection)
    assert (status, problem["code"]) == (400, "malformed-request")
    assert client.get("/models").status_code == 200


def test_without_a_url_the_answer_is_one_line(server: Server) -> None:
    for begin in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0" * 100,
        b"GET /mod\xffels HTTP/1.1\r\n\r\n",
    ):
        with connected(server, begin) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "part_headers",
    [
        b"X: " + b"x" * 10 * 2**20 + b"\r\n",
        b"X: y\r\n" * 10**6,
        b"X" * 10 * 2**20,
        b'Content-Disposition: form-data; name="' + b"x" * 10 * 2**20 + b'"\r\n',
        b'Content-Disposition: form-data; name="a"; filename="' + b"x" * 10 * 2**20 + b'"\r\n',
    ],
    ids=["value", "headers", "name", "field name", "file name"],
)
def test_headers_of_multipart_parts_are_limited_too(
    server: Server, client: httpx.Client, photo: bytes, part_headers: bytes
) -> None:
    assert works(client, photo)
    before = memory(server)
    refused = client.post(
        "/classify",
        headers={"Content-Type": "multipart/form-data; boundary=a"},
        content=b"--a\r\n" + part_headers + b"\r\nx\r\n--a--\r\n",
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed-upload")
    assert memory(server) < before + LITTLE
    assert works(client, photo)


def test_the_log_has_no_traceback(server: Server) -> None:
    """Last in this file, after headers of every kind."""
    assert "Traceback" not in "".join(server.log)
