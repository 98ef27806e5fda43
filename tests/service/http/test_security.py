"""API keys, headers and cross-origin calls on a real server."""

from pathlib import Path

import httpx
import pytest

from tests.conftest import DEEPVIT
from tests.support.server import running_server


def test_everything_but_public_paths_needs_a_key(repository: Path, photo: bytes) -> None:
    with (
        running_server(repository, api_keys="first-key, second-key") as server,
        server.client() as client,
    ):

        def post(**headers: str) -> httpx.Response:
            return client.post("/classify", files={"image": photo}, headers=headers)

        public = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
        for path in (*public, "/", "/web/main.js"):
            assert client.get(path).status_code == 200
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
            ("GET", f"/v2/models/{DEEPVIT}/ready"),
            ("POST", f"/v2/models/{DEEPVIT}/infer"),
            ("POST", "/v2/repository/index"),
            ("POST", f"/v2/repository/models/{DEEPVIT}/unload"),
        ]:
            refused = client.request(method, path, headers={"X-API-Key": "wrong"})
            assert refused.status_code == 401
            assert list(refused.json()) == ["error"]
            assert refused.json()["error"].startswith("A valid API key is needed: ")
        opened = client.get("/v2", headers={"Authorization": "Bearer second-key"})
        assert opened.json()["name"] == "deepvit-inference"
        assert "first-key" not in "".join(server.log)


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
def test_only_named_origins_may_call(repository: Path, origin: str) -> None:
    with (
        running_server(repository, cors_origins="https://a.example") as server,
        server.client() as client,
    ):
        answer = client.get("/models", headers={"Origin": origin})
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if origin == "https://a.example" else None)
