"""What a page of another origin can make a browser send, as a browser describes it.

tests/explorer/test_other_origins.py has a real browser send it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from models.arrays import Pixels
from service.http.schemas import ClassifyAnswer
from tests.conftest import DEEPVIT, VIT
from tests.service.http.v2_requests import INFER, error, image_request
from tests.support.nginx import running_nginx
from tests.support.server import Server, running_server

ELSEWHERE = "https://evil.example"
NAMED = "https://app.example.org"
LOAD = f"/v2/repository/models/{VIT}/load"
UNLOAD = f"/v2/repository/models/{VIT}/unload"
FROM_ELSEWHERE: tuple[Mapping[str, str], ...] = (
    {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},  # of a sandboxed frame
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "of the future"},
    # Without Sec-Fetch-Site, as browsers send to http elsewhere than this machine, and old ones.
    {"Origin": ELSEWHERE},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://[", "Host": "localhost"},
    {"Origin": "http://127.0.0.1.evil.example", "Host": "127.0.0.1"},
)
OURS: tuple[Mapping[str, str], ...] = (
    {},  # no browser
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"},  # behind a proxy
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost:8000", "Host": "LOCALHOST:8000"},
    {"Origin": "https://public.example", "X-Forwarded-Host": "public.example"},
    {"Origin": "https://public.example", "X-Forwarded-Host": "public.example, inner.example"},
)


def post(
    client: httpx.Client, photo: bytes, pixels: Pixels, headers: Mapping[str, str]
) -> dict[str, httpx.Response]:
    """The answers to every request that costs or changes something."""
    given = dict(headers)
    return {
        "classify": client.post("/classify", files={"image": photo}, headers=given),
        "infer": client.post(INFER, json=image_request(pixels), headers=given),
        "index": client.post("/v2/repository/index", headers=given),
        "load": client.post(LOAD, headers=given),
        "unload": client.post(UNLOAD, headers=given),
        "load again": client.post(LOAD, headers=given),
    }


def statuses(answers: Mapping[str, httpx.Response]) -> set[int]:
    return {answer.status_code for answer in answers.values()}


@pytest.fixture(scope="module")
def own(repository: Path) -> Iterator[Server]:
    """A server whose models may be unloaded."""
    with running_server(repository) as running:
        yield running


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
def test_pages_of_other_origins_are_refused(
    own: Server, photo: bytes, pixels: Pixels, headers: Mapping[str, str]
) -> None:
    with own.client() as client:
        answers = post(client, photo, pixels, headers)
        assert statuses(answers) == {403}
        problem = answers["classify"].json()
        assert (problem["status"], problem["code"]) == (403, "cross-origin")
        assert "DEEPVIT_CORS_ORIGINS" in problem["detail"]
        for name in ("infer", "unload"):
            assert error(answers[name]).startswith("Pages of other origins may not ask for this: ")
        assert client.get(f"/v2/models/{VIT}/ready").status_code == 200
        assert client.get("/models", headers=dict(headers)).status_code == 200  # costs nothing


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_the_services_own_pages_and_other_programs_are_not(
    own: Server, photo: bytes, pixels: Pixels, headers: Mapping[str, str]
) -> None:
    with own.client() as client:
        assert statuses(post(client, photo, pixels, headers)) == {200}


def test_a_refusal_comes_before_the_body_is_read(own: Server, photo: bytes) -> None:
    with own.client() as client:
        headers = {"Origin": ELSEWHERE, "Content-Type": "text/plain"}
        assert client.post("/classify", content=photo, headers=headers).status_code == 403
        assert client.post("/nowhere", content=photo, headers=headers).status_code == 403


@pytest.mark.parametrize("allowed", [NAMED, f"https://b.example, {NAMED.upper()}", "*"])
def test_origins_that_may_read_may_ask_but_not_unload(
    repository: Path, photo: bytes, pixels: Pixels, allowed: str
) -> None:
    with running_server(repository, cors_origins=allowed) as server, server.client() as client:
        headers = {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"}
        answers = post(client, photo, pixels, headers)
        asked = {"classify", "infer", "index"}
        assert {name for name, answer in answers.items() if answer.status_code == 200} == asked
        assert statuses(answers) == {200, 403}
        for answer in answers.values():  # the refusal can be read too
            assert answer.headers["access-control-allow-origin"] in ("*", NAMED)
        other = post(client, photo, pixels, headers | {"Origin": ELSEWHERE})
        assert statuses(other) == ({200, 403} if allowed == "*" else {403})
        assert client.get(f"/v2/models/{VIT}/ready").status_code == 200


def test_whoever_sends_a_key_may_come_from_anywhere(
    repository: Path, photo: bytes, pixels: Pixels
) -> None:
    with running_server(repository, api_keys="the-key") as server, server.client() as client:
        for headers in FROM_ELSEWHERE:
            if "Host" not in headers:
                keyed = dict(headers) | {"X-API-Key": "the-key"}
                assert statuses(post(client, photo, pixels, keyed)) == {200}
                assert statuses(post(client, photo, pixels, headers)) == {401}
        preflight = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST"}
        assert client.options(UNLOAD, headers=preflight).status_code == 405


def test_behind_a_proxy_with_plain_http(own: Server, photo: bytes, tmp_path: Path) -> None:
    """A browser then sends no Sec-Fetch-Site, and the proxy its own name as Host."""
    locations = """
    location /silent/ { proxy_pass UPSTREAM/; }
    location /telling/ { proxy_pass UPSTREAM/; proxy_set_header X-Forwarded-Host $http_host; }
    """
    headers = {"Host": "lab.example", "Origin": "http://lab.example"}
    with running_nginx(own, tmp_path, locations) as proxy:
        for path, status in (("silent", 403), ("telling", 200)):
            answer = httpx.post(f"{proxy}/{path}/classify", files={"image": photo}, headers=headers)
            assert answer.status_code == status
    assert ClassifyAnswer.model_validate(answer.json()).model == DEEPVIT


def test_every_request_that_is_refused_so_says_so_in_the_specification(own: Server) -> None:
    with own.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            examples: set[str] = set()
            for content in operation["responses"].get("403", {}).get("content", {}).values():
                examples |= content["examples"].keys()
            assert ("cross-origin" in examples) == (method == "post"), path
            assert ("model-control-off" in examples) == path.endswith("load"), path
            assert "421" in operation["responses"]
