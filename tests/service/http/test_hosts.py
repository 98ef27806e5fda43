"""DNS rebinding: the service answers only to names that cannot be somebody else's."""

from pathlib import Path

import httpx
import pytest

from service.http.middleware import PROBES
from tests.support.nginx import running_nginx
from tests.support.server import Server, running_server
from tests.support.sockets import connected, read_all, statuses

REBOUND = "evil.example"
PUBLIC = "api.example.org"
# A proxy on the same machine sends the address or name in its configuration, unless told otherwise.
ALWAYS = (
    "localhost",
    "LocalHost:8000",
    "localhost.",
    "app.localhost:8000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "[::1]",
    "[::1]:8000",
    "0.0.0.0:8000",
    "10.1.2.3:8000",
    "[fd00::12]:8000",
)
DOTLESS = ("deepvit", "deepvit_upstream:80", "x.")
NEVER = (
    "evil.example:8000",
    "evil.example.",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evillocalhost.example",
    "127.0.0.1:8000@evil.example",
    "127.0.0.1/evil.example",
    "[::1].evil.example",
    "[evil.example]",
    "127.0.0.1:port",
    "1.2.3",
    "[",
    "..",
    ".",
    "ev\xeflhost",
)


def status(server: Server, *hosts: str, path: str = "/models") -> int:
    """Of the answer to a request with these Host headers."""
    headers = "".join(f"Host: {host}\r\n" for host in hosts)
    request = f"GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"
    with connected(server, request.encode("latin-1")) as connection:
        (found,) = statuses(read_all(connection))
    return found


@pytest.mark.parametrize("host", [*ALWAYS, *DOTLESS])
def test_on_loopback_a_name_that_nobody_can_register_is_answered(server: Server, host: str) -> None:
    assert status(server, host) == 200


@pytest.mark.parametrize("host", NEVER)
def test_on_loopback_other_names_are_not(server: Server, host: str) -> None:
    assert status(server, host) == 421


def test_every_host_header_counts_and_none_is_no_browser(server: Server) -> None:
    assert status(server, "localhost", "evil.example") == 421
    assert status(server, "evil.example", "localhost") == 421
    assert status(server) == 200


@pytest.mark.parametrize("path", ["/", "/web/main.js", "/classify", "/openapi.json", "/metrics"])
def test_a_refusal_is_a_problem_document(client: httpx.Client, path: str) -> None:
    method = "POST" if path == "/classify" else "GET"
    forwarded = {"X-Forwarded-Host": "localhost", "Host": REBOUND}
    refused = client.request(method, path, headers=forwarded)
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (problem["status"], problem["code"]) == (421, "misdirected-request")
    assert "DEEPVIT_ALLOWED_HOSTS" in problem["detail"]
    assert refused.headers["x-request-id"] == problem["request_id"]


def test_the_inference_protocol_has_its_own_form(client: httpx.Client) -> None:
    refused = client.get("/v2", headers={"Host": REBOUND})
    assert (refused.status_code, list(refused.json())) == (421, ["error"])


def test_named_hosts_are_answered_and_no_others(tiny_repository: Path) -> None:
    settings = {"allowed_hosts": "API.example.org, *.models.example.org", "host": "0.0.0.0"}
    with running_server(tiny_repository, **settings) as server:
        for host in ("api.example.org", "Api.Example.org:443", "a.models.example.org", *ALWAYS):
            assert status(server, host) == 200, host
        for host in ("models.example.org", "example.org", *DOTLESS, *NEVER):
            assert status(server, host) == 421, host


@pytest.mark.parametrize(
    "settings", [{"host": "0.0.0.0"}, {"allowed_hosts": "a.example,*"}], ids=str
)
def test_elsewhere_or_with_a_star_every_name_is_answered(
    tiny_repository: Path, settings: dict[str, str]
) -> None:
    with running_server(tiny_repository, **settings) as server:
        for host in (*ALWAYS, *DOTLESS, *NEVER):
            assert status(server, host) == 200, host


@pytest.mark.parametrize("path", PROBES)
def test_probes_come_with_the_address_of_a_pod(server: Server, path: str) -> None:
    assert status(server, "10.244.1.17:8000", path=path) == 200


@pytest.mark.parametrize(("setting", "expected"), [({}, 421), ({"allowed_hosts": PUBLIC}, 200)])
def test_a_proxy_on_the_same_machine_may_pass_on_the_public_name(
    tiny_repository: Path, tmp_path: Path, setting: dict[str, str], expected: int
) -> None:
    locations = """
    location /address/ { proxy_pass UPSTREAM/; }
    location /name/ { proxy_pass UPSTREAM/; proxy_set_header Host $http_host; }
    """
    with running_server(tiny_repository, **setting) as server:
        assert status(server, "deepvit_upstream") == (421 if setting else 200)
        with running_nginx(server, tmp_path, locations) as proxy:
            for path, due in (("address", 200), ("name", expected)):
                found = httpx.get(f"{proxy}/{path}/models", headers={"Host": PUBLIC})
                assert found.status_code == due
