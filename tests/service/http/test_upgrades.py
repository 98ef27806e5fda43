"""Offers of another protocol: the request means what it means without them, body and all."""

import shutil
import socket
import subprocess

import pytest

from tests.support.server import ROOT, Server
from tests.support.sockets import connected, read_all, statuses

CAT = ROOT / "tests" / "data" / "cat.jpg"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: eA==\r\n",
    "several": b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nUpgrade: IRC/6.9, x\r\n",
}
HIDDEN = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"  # a body that could be a request
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

offers = pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)


def post(offer: bytes, framing: bytes) -> bytes:
    """The request line and headers of an upload."""
    start = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    return start + offer + framing + b"\r\n"


def chunked(body: bytes) -> bytes:
    half = len(body) // 2
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))


def framed(body: bytes) -> list[tuple[bytes, bytes]]:
    """Both ways to mark where a body ends: the header, and the body as it is sent."""
    return [
        (b"Content-Length: %d\r\n" % len(body), body),
        (b"Transfer-Encoding: chunked\r\n", chunked(body)),
    ]


@offers
def test_a_body_in_the_same_segment_is_read(server: Server, photo: bytes, offer: bytes) -> None:
    for framing, body in framed(photo):
        request = post(offer, framing) + body
        with connected(server, request + request + LAST) as connection:
            received = read_all(connection)
        assert statuses(received) == [200, 200, 200]
        assert received.count(b'"predictions"') == 2


@offers
def test_a_body_that_comes_later_is_not_a_request(server: Server, offer: bytes) -> None:
    for framing, body in framed(HIDDEN):
        head = post(offer, framing + b"Expect: 100-continue\r\n")
        with connected(server, head) as connection:
            assert statuses(connection.recv(100)) == [100]  # the headers came alone
            connection.sendall(body + LAST)
            assert statuses(read_all(connection)) == [415, 200]


@offers
def test_requests_byte_by_byte(server: Server, offer: bytes) -> None:
    get = b"GET /models?x HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    requests = get.replace(b"?x", b"") * 2
    requests += b"".join(post(offer, framing) + body for framing, body in framed(HIDDEN))
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in requests + LAST:
            connection.send(bytes([byte]))
        assert statuses(read_all(connection)) == [200, 200, 415, 415, 200]


@offers
def test_the_rest_of_the_request_stays_as_it_is(server: Server, offer: bytes) -> None:
    """Its method, query, version and other headers, and the limits on them."""
    start = b"GET /similarity?stage=mixed HTTP/1.0\r\nX-Request-Id: mine\r\n"
    with connected(server, start + offer + b"\r\n") as connection:
        received = read_all(connection)  # the server closes after HTTP/1.0
    assert statuses(received) == [422]
    assert b"\r\nx-request-id: mine\r\n" in received
    with connected(server, b"HEAD /models HTTP/1.1\r\n" + offer + b"\r\n" + LAST) as connection:
        assert statuses(read_all(connection)) == [200, 200]
    many = b"X: y\r\n" * 100
    with connected(server, post(offer, many) + LAST) as connection:
        assert statuses(read_all(connection)) == [431, 200]


def test_a_tunnel_is_refused(server: Server) -> None:
    """CONNECT is the other request after which httptools expects another protocol."""
    with connected(server, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN) as connection:
        assert statuses(read_all(connection)) == [400]


@pytest.mark.parametrize("how", [["--form", f"image=@{CAT}"], ["--data-binary", f"@{CAT}"]])
def test_curl_may_offer_http_2(server: Server, how: list[str]) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        pytest.skip("curl with HTTP/2 is not installed")
    command = [curl, "--silent", "--http2", "--write-out", "%{http_code}", *how]
    if "--data-binary" in how:
        command += ["--header", "Content-Type: image/jpeg"]
    answer = subprocess.check_output([*command, f"{server.url}/classify?top_k=1"], text=True)
    assert answer.endswith("200")
    assert '"label":"cat"' in answer


def test_offers_are_not_worth_a_warning(server: Server) -> None:
    """Last in this file."""
    assert "pgrade" not in "".join(server.log)
