"""API keys, headers and cross-origin calls on a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api_keys import ApiKeys
from service.errors import Unauthorized
from tests.conftest import TINY
from tests.support.server import Server, failed_start, running_server
from tests.support.sockets import connected, read_all, statuses


def test_a_key_is_taken_in_either_header(tiny_repository: Path, photo: bytes) -> None:
    with (
        running_server(tiny_repository, api_keys="first-key, second-key") as server,
        server.client() as client,
    ):

        def post(**headers: str) -> httpx.Response:
            return client.post("/classify", files={"image": photo}, headers=headers)

        for key in ("first-key", "second-key"):
            assert post(Authorization=f"Bearer {key}").status_code == 200
            assert post(**{"X-API-Key": key}).status_code == 200
            gateway = {"Authorization": "Bearer some.other.token", "X-API-Key": key}
            assert post(**gateway).status_code == 200
        for wrong in ({}, {"X-API-Key": "first-key,"}, {"Authorization": "Bearer x"}):
            refused = post(**wrong)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/models").status_code == 401
        for method, path in [
            ("GET", "/v2"),
            ("GET", f"/v2/models/{TINY}/ready"),
            ("POST", f"/v2/models/{TINY}/infer"),
            ("POST", "/v2/repository/index"),
            ("POST", f"/v2/repository/models/{TINY}/unload"),
        ]:
            refused = client.request(method, path, headers={"X-API-Key": "wrong"})
            assert refused.status_code == 401
            assert list(refused.json()) == ["error"]
            assert refused.json()["error"].startswith("A valid API key is needed: ")
        opened = client.get("/v2", headers={"Authorization": "Bearer second-key"})
        assert opened.json()["name"] == "deepvit-inference"
        assert "first-key" not in "".join(server.log)


@pytest.mark.parametrize("keys", [",", " ", " , ", ""])
def test_keys_that_are_none_end_the_start(tiny_repository: Path, keys: str) -> None:
    status, said = failed_start("--model-repository", str(tiny_repository), api_keys=keys)
    assert status == 1
    assert said.startswith("service: wrong setting: api_keys: ")
    assert said.count("\n") == 1


LONG = "k" * 4096  # the longest that may be set


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"ascii", 200),
        ("schlüssel".encode(), 200),  # as curl sends what is typed
        ("schlüssel".encode("latin-1"), 200),  # as browsers send it
        ("ключ".encode(), 200),
        (b"two words", 200),
        (LONG.encode(), 200),
        (LONG.encode() * 7, 401),
        (b"", 401),
        (b"schl?ssel", 401),
        (b"\xff\xfe", 401),
        (b"ascii\xff", 401),
        (b"ascii,schl", 401),
    ],
)
def test_a_key_may_have_any_characters(keyed: Server, sent: bytes, status: int) -> None:
    for header in (b"X-API-Key: " + sent, b"Authorization: Bearer " + sent):
        request = b"GET /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header
        with connected(keyed, request + b"\r\n\r\n") as connection:
            assert statuses(read_all(connection)) == [status]


def test_a_key_may_be_bytes_that_are_no_text() -> None:
    """As Python reads them from a variable."""
    keys = ApiKeys([b"\xff\xfekey".decode("utf-8", "surrogateescape")])
    keys.check("\xff\xfekey")
    for wrong in ("", "key", "\udcff\udcfekey"):
        with pytest.raises(Unauthorized):
            keys.check(wrong)


@pytest.fixture(scope="module")
def keyed(tiny_repository: Path) -> Iterator[Server]:
    keys = f"ascii, schlüssel, ключ, two words, {LONG}"
    with running_server(tiny_repository, api_keys=keys) as running:
        yield running


def test_every_answer_has_security_headers(client: httpx.Client) -> None:
    for path in ("/models", "/nothing", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/", "/web/main.js", "/web/samples/cat.jpg"])
def test_the_explorer_may_run_only_its_own_files(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert client.get("/web/../app.py").status_code == 404


@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example"])
def test_only_named_origins_may_call(tiny_repository: Path, origin: str) -> None:
    with (
        running_server(tiny_repository, cors_origins="https://a.example") as server,
        server.client() as client,
    ):
        answer = client.get("/models", headers={"Origin": origin})
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if origin == "https://a.example" else None)


def test_pages_of_other_origins_can_read_every_header_that_they_need(
    tiny_repository: Path, photo: bytes
) -> None:
    with (
        running_server(tiny_repository, cors_origins="https://a.example", api_keys="key") as server,
        server.client() as client,
    ):
        client.headers["Origin"] = "https://a.example"
        answers = [client.post("/classify", files={"image": photo})]
        client.headers["X-API-Key"] = "key"
        answers.append(client.post("/classify", files={"image": photo}))
        maps = answers[-1].json()["results"][0]["links"]["attention_maps"]
        answers += [client.get(f"{maps}&format=npy"), client.post(**binary_inference())]
        told = {name for answer in answers for name in answer.headers}
        asked = {"Access-Control-Request-Method": "HEAD"}
        assert client.options("/models", headers=asked).status_code == 200
    assert [answer.status_code for answer in answers] == [401, 200, 200, 200]
    exposed = {
        name.strip().lower()
        for name in answers[-1].headers["access-control-expose-headers"].split(",")
    }
    assert told & exposed == exposed - {"retry-after"}
    assert {"inference-header-content-length", "x-attention-maps"} <= exposed


def binary_inference() -> dict[str, Any]:
    """A request whose answer is JSON with binary tensors behind it."""
    data = {"data": [0] * 32 * 32 * 3}
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]} | data
    output = {"name": "logits", "parameters": {"binary_data": True}}
    body = {"inputs": [image], "outputs": [output]}
    return {"url": f"/v2/models/{TINY}/infer", "json": body}
