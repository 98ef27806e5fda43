"""A path prefix, named in a setting or by a trusted proxy, taken off the path or left on."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, running_server

PREFIX = "/apps/deep-vit"
KEY = {"X-API-Key": "key"}
PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


@pytest.fixture(scope="module", params=["setting", "header"])
def named(tiny_repository: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Server, bool]]:
    """A server with a key, and whether the proxy has to name the prefix."""
    setting = {"root_path": PREFIX} if request.param == "setting" else {}
    with running_server(tiny_repository, api_keys="key", **setting) as server:
        yield server, not setting


@pytest.fixture(params=["", PREFIX], ids=["taken off", "left on"])
def proxy(named: tuple[Server, bool], request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Asks as the proxy does; its clients have to ask for addresses below the prefix."""
    server, by_header = named
    headers = {"X-Forwarded-Prefix": PREFIX} if by_header else {}
    with httpx.Client(base_url=server.url + request.param, headers=headers) as client:
        yield client


def test_every_address_in_answers_has_the_prefix(proxy: httpx.Client, photo: bytes) -> None:
    classified = proxy.post("/classify", files={"image": photo}, headers=KEY).json()
    models = proxy.get("/models", headers=KEY).json()["models"]
    pages = proxy.get("/docs", headers=KEY).text + proxy.get("/redoc", headers=KEY).text
    addresses = [
        *classified["results"][0]["links"].values(),
        *(model["url"] for model in models),
        *re.findall(r'(?:href|src|spec-url)="(/[^"]*)"', pages),
        *re.findall(r"url: '([^']*)'", pages),
    ]
    assert len(addresses) == 2 + 1 + 4 + 3
    for address in addresses:
        assert address.startswith(f"{PREFIX}/")
        answer = proxy.get(address.removeprefix(PREFIX), headers=KEY)
        assert answer.status_code == 200, address
    specification = proxy.get("/openapi.json", headers=KEY).json()
    assert specification["servers"] == [{"url": PREFIX}]


def test_the_explorer_needs_no_prefix(proxy: httpx.Client) -> None:
    page = proxy.get("/").text
    addresses = re.findall(r'(?:href|src)="([^"#]*)"', page)
    assert addresses
    for address in addresses:
        assert not address.startswith(("/", "http")) or address.startswith("https://")
    assert proxy.get("/web/main.js").status_code == 200


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/models/", "/models"),
        ("/models/?a=b&c", "/models?a=b&c"),
        ("/v2/models/stats/", "/v2/models/stats"),
        ("/web", "/web/"),
    ],
)
def test_redirects_are_relative(proxy: httpx.Client, path: str, leads_to: str) -> None:
    """They hold where the server knows neither the prefix nor the host and scheme of the proxy."""
    answer = proxy.get(path)
    assert answer.status_code == 307
    for asked_below in (PREFIX, "/unknown", ""):
        asked = httpx.URL(f"https://public.example{asked_below}{path}")
        found = asked.join(answer.headers["location"])
        assert str(found) == f"https://public.example{asked_below}{leads_to}"


def test_the_prefix_alone_is_the_explorer(named: tuple[Server, bool]) -> None:
    server, by_header = named
    headers = {"X-Forwarded-Prefix": PREFIX} if by_header else {}
    asked = httpx.URL(server.url + PREFIX)
    answer = httpx.get(asked, headers=headers)
    assert asked.join(answer.headers["location"]) == f"{asked}/"


def test_public_paths_are_public_below_the_prefix_too(proxy: httpx.Client) -> None:
    for path in (*PROBES, "/", "/web/main.js"):
        assert proxy.get(path).status_code == 200
    for path in ("/models", f"{PREFIX}{PREFIX}/livez", f"/models{PREFIX}/livez"):
        assert proxy.get(path).status_code in (401, 404)
    assert proxy.get("/models").status_code == 401


def test_errors_name_the_address_of_the_client(proxy: httpx.Client) -> None:
    problem = proxy.get("/models/none", headers=KEY).json()
    assert problem["instance"] == f"{PREFIX}/models/none"
    assert proxy.get("/v2/models/none", headers=KEY).json().keys() == {"error"}
    assert proxy.get("/models", headers=[("X", "")] * 100).status_code == 431


def test_what_is_logged_and_counted_is_the_path_below_the_prefix(tiny_repository: Path) -> None:
    with running_server(tiny_repository, root_path=PREFIX) as server:
        with server.client() as client:
            for path in (PREFIX, "", PREFIX + PREFIX):
                for probe in PROBES:
                    client.get(path + probe)
                client.get(f"{path}/models")
            metrics = client.get("/metrics").text
        server.terminate()
        lines = [json.loads(line) for line in server.log]
    logged = [line["message"] for line in lines if line["logger"] == "service.access"]
    unknown = [f"GET {PREFIX}{path} 404" for path in (*PROBES, "/models")]
    assert logged == ["GET /models 200", "GET /models 200", *unknown]
    assert 'deepvit_requests_total{route="/models",status="200"} 2.0' in metrics


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("/a", "/a"),
        ("/a/b.c_d~e/", "/a/b.c_d~e"),
        ("/", ""),
        ("", ""),
        ("a", ""),
        ("//a.example", ""),
        ("/a//b", ""),
        ("/a, /b", ""),
        ("/a?b", ""),
        ('/a"><script>', ""),
        ("/a%2F", ""),
        ("/" + "a" * 300, ""),
    ],
)
def test_only_what_can_be_a_prefix_is_taken(client: httpx.Client, value: str, prefix: str) -> None:
    answer = client.get("/models", headers={"X-Forwarded-Prefix": value})
    url = answer.json()["models"][0]["url"]
    assert url.partition("/models/")[0] == prefix


def test_only_a_trusted_proxy_names_the_prefix(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is who connects, whatever client it names."""
    headers = {"X-Forwarded-Prefix": PREFIX, "X-Forwarded-For": "192.0.2.1"}
    for trusted, prefix in (
        ("192.0.2.1", ""),
        ("10.0.0.0/8,127.0.0.0/8", PREFIX),
        ("*", PREFIX),
        (",", ""),
    ):
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
        with running_server(tiny_repository) as server:
            answer = httpx.get(f"{server.url}/models", headers=headers).json()
        assert answer["models"][0]["url"].startswith(f"{prefix}/models/")


def test_the_setting_comes_before_what_a_proxy_says(named: tuple[Server, bool]) -> None:
    server, by_header = named
    headers = {"X-Forwarded-Prefix": "/other"} | KEY
    (first, *_) = httpx.get(f"{server.url}/models", headers=headers).json()["models"]
    assert first["url"].startswith("/other/" if by_header else f"{PREFIX}/")
