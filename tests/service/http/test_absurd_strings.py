"""Strings of clients in every place that a request has: none is a server error, and none stays."""

from itertools import product

import httpx
import pytest

from tests.conftest import DEEPVIT
from tests.support.memory import bounded_growth
from tests.support.server import Server
from tests.support.sockets import connected, read_all, statuses

FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%s\r\n--b--\r\n'
IN_TARGETS = (
    *(b"", b"x" * 3000, b"9" * 3000, b"1" + b"0" * 400, b"-" + b"9" * 400, b"1e999", b"nan"),
    *(b"a%00b", b"%ff%fe", b"%ed%a0%80", b"%f0%9f%98%80", b"%d9%a3", b"%c2%b2", b"a%0d%0ab"),
    *(b"..", b"..%2f..%2fetc", b"%2f", b"%5c", b"%", b"%zz", b"1," * 1500, b"1_0", b"%ef%bb%bf1"),
)
IN_HEADERS = (
    *(b"", b"x" * 20_000, b"9" * 401, b"9" * 5000, b"-1", b"1e999", b"\xff\xed\xa0\x80", b"\xb2"),
    *(b",;=" * 500, b'"' + b"\\" * 5000, b"bytes=0-" + b"9" * 30, b"bytes=" + b"0-1," * 3000),
    *(b"Mon, 99 Foo 99999 99:99:99 GMT", b"[::1", b"gzip;q=999999", b"1.2.3.4:" + b"9" * 9, b"*"),
    *(b"multipart/form-data; boundary=" + rest for rest in (b"", b"b" * 300, b"\xff", b'"b')),
    *(b"image/\xff", b"application/json; charset=undefined", b"Bearer \xff", b"00-zz-zz-zz"),
)
CHARSETS = ("utf-8", "undefined", "idna", "punycode", "utf-7", "hex", "mbcs", "x" * 5000)


def places(image_id: str) -> list[tuple[bytes, bytes]]:
    """What comes before and after a string in the target of a request."""
    model = DEEPVIT.encode()
    classify = ("model", "version", "top_k", "attention", "similarity", "stage", "threshold", "no")
    inside = ("layer", "head", "query", "direction", "stage", "format", "overlay", "scale", "model")
    return [
        *((f"POST /classify?{name}=".encode(), b"") for name in classify),
        *((f"GET /attention-maps?id={image_id}&{name}=".encode(), b"") for name in inside),
        *((f"GET /similarity?id={image_id}&{n}=".encode(), b"") for n in ("version", "variant")),
        (b"GET /attention-maps?id=", b""),
        *((b"GET " + path, b"") for path in (b"/", b"/images/", b"/models/", b"/web/", b"/v2/")),
        (b"GET /models/%s?version=" % model, b""),
        *((b"GET /v2/models/", end) for end in (b"", b"/ready", b"/config", b"/stats")),
        (b"GET /v2/models/%s/versions/" % model, b"/config"),
        (b"POST /v2/models/", b"/infer"),
        (b"POST /v2/models/%s/versions/" % model, b"/infer"),
        *((b"POST /v2/repository/models/", end) for end in (b"/load", b"/unload")),
    ]


@pytest.fixture(scope="module")
def image_id(client: httpx.Client, photo: bytes) -> str:
    found: str = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    return found


def status(server: Server, target: bytes, headers: bytes = b"", body: bytes = b"") -> int:
    length = b"Content-Length: %d\r\n" % len(body) if target.startswith(b"POST") else b""
    request = target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length + headers
    with connected(server, request + b"\r\n" + body) as connection:
        (found,) = statuses(read_all(connection))
    return found


def test_in_targets(server: Server, photo: bytes, image_id: str) -> None:
    kind = b"Content-Type: image/jpeg\r\n"
    for (before, after), string in product(places(image_id), IN_TARGETS):
        body = photo if before.startswith(b"POST") else b""
        assert status(server, before + string + after, kind, body) < 500, (before, string[:40])


@pytest.mark.parametrize(
    "name",
    [
        *("X-Request-Timeout-Ms", "X-Request-Id", "Content-Type", "Content-Encoding", "Accept"),
        *("Inference-Header-Content-Length", "Accept-Encoding", "If-None-Match", "Authorization"),
        *("X-API-Key", "Origin", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"),
        *("Expect", "Range", "If-Range", "If-Modified-Since", "traceparent", "Cookie"),
    ],
)
def test_in_headers(server: Server, photo: bytes, image_id: str, name: str) -> None:
    targets = (
        (b"POST /classify", photo),
        (b"GET /attention-maps?id=" + image_id.encode(), b""),
        (b"GET /web/explorer.css", b""),
        (b"POST /v2/models/%s/infer" % DEEPVIT.encode(), b"{}"),
    )
    for (target, body), value in product(targets, IN_HEADERS):
        header = name.encode() + b": " + value + b"\r\n"
        assert status(server, target, header, body) < 500, (target, value[:40])


def test_a_deadline_of_any_length_is_at_most_the_services_own(
    client: httpx.Client, photo: bytes
) -> None:
    for digits in (9, 10, 400, 4000):
        headers = {"X-Request-Timeout-Ms": "1" + "0" * digits}
        assert client.post("/classify", files={"image": photo}, headers=headers).is_success


@pytest.mark.parametrize("charset", CHARSETS)
def test_charsets_of_forms_do_not_matter(client: httpx.Client, photo: bytes, charset: str) -> None:
    for name in ("boundary=b; charset", "charset*=utf-8''b; boundary=b; charset*0"):
        kind = {"Content-Type": f"multipart/form-data; {name}={charset}"}
        answer = client.post("/classify", content=FORM % photo, headers=kind)
        assert answer.status_code == 200


def test_a_name_longer_than_a_files_is_an_unknown_model(client: httpx.Client) -> None:
    for name in ("x" * 300, "é" * 200, "x" * 255, "%00", "%ed%a0%80"):
        answer = client.post(f"/v2/repository/models/{name}/load")
        assert answer.status_code == 404
        assert answer.json()["error"].startswith("No such model")


def test_strings_do_not_stay(server: Server, client: httpx.Client, photo: bytes) -> None:
    """1,500 requests with 60 MB of strings, no two of which are the same."""

    def ask(number: int) -> None:
        string = f"{number}-" + "x" * 5000
        answers = [
            client.get(f"/{string}"),
            client.get(f"/models/{string}"),
            client.get(f"/attention-maps?{string}=1", headers={"X-Request-Id": string}),
            client.post(f"/v2/repository/models/{string}/load"),
            client.post(
                "/classify",
                content=FORM % photo[:100],
                headers={
                    "Content-Type": f"multipart/form-data; boundary=b; charset={string}",
                    "X-API-Key": string,
                    "Accept-Encoding": string,
                },
            ),
        ]
        assert all(400 <= answer.status_code < 500 for answer in answers)

    for number in range(50):
        ask(number)
    with bounded_growth(server.process.pid, 16):
        for number in range(100, 400):
            ask(number)
    assert "Traceback" not in "".join(server.log)
