"""Parameters of requests: read, checked and documented from the same models."""

from typing import Any

import httpx
import pytest

from tests.conftest import DEEPVIT

TIMEOUT = "x-request-timeout-ms"
ID = "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "required", "documented"),
    [
        (
            "post",
            "/classify",
            set(),
            {"model", "version", "top_k", "attention", "similarity", "stage", "threshold", TIMEOUT},
        ),
        (
            "get",
            "/similarity",
            {"id"},
            {"id", "model", "version", "stage", "threshold", "format", "variant", TIMEOUT},
        ),
        ("get", "/models/{name}", {"name"}, {"name", "version"}),
    ],
)
def test_every_parameter_is_documented(
    client: httpx.Client, method: str, path: str, required: set[str], documented: set[str]
) -> None:
    found: list[dict[str, Any]]
    found = client.get("/openapi.json").json()["paths"][path][method]["parameters"]
    assert {one["name"] for one in found} == documented
    assert {one["name"] for one in found if one["required"]} == required
    assert {one["name"] for one in found if one["in"] == "header"} == documented & {TIMEOUT}


def test_all_wrong_parameters_are_named_at_once(client: httpx.Client) -> None:
    query = {"stage": "before", "threshold": "2"}
    wrong = client.get("/similarity", params=query, headers={TIMEOUT: "soon"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid-request")
    for name in ("id: Field required", "stage: ", "threshold: ", f"{TIMEOUT}: "):
        assert name in wrong.json()["detail"]


def test_the_timeout_is_a_header_and_no_query_parameter(client: httpx.Client) -> None:
    unknown = client.get("/similarity", params={"id": ID, TIMEOUT: "soon", "timeout_ms": "soon"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid-request")
    for name in (TIMEOUT, "timeout_ms"):
        assert f"{name}: no such parameter" in unknown.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/classify?topk=3", "topk: no such parameter; did you mean top_k?"),
        ("GET", f"/attention-maps?id={ID}&layers=3", "layers: no such parameter; did you mean lay"),
        ("GET", f"/attention-maps?id={ID}&layer=3&layer=4", "layer: given more than once"),
        ("GET", f"/similarity?id={ID}&colour=red", "colour: no such parameter"),
        ("GET", f"/models/{DEEPVIT}?versions=1", "versions: no such parameter; did you mean versi"),
    ],
)
def test_what_would_be_ignored_is_refused(
    client: httpx.Client, photo: bytes, method: str, path: str, said: str
) -> None:
    files = {"image": photo} if method == "POST" else None
    refused = client.request(method, path, files=files)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-request")
    assert said in refused.json()["detail"]


def test_thousands_of_unknown_parameters_are_not_all_told(client: httpx.Client) -> None:
    refused = client.get("/similarity?" + "&".join(f"{number:x}" for number in range(1500)))
    assert refused.status_code == 422
    assert 0 < refused.json()["detail"].count("no such parameter") < 20


def test_a_version_is_checked(client: httpx.Client) -> None:
    path = f"/models/{DEEPVIT}"
    assert client.get(path, params={"version": 1}).status_code == 200
    assert client.get(path, params={"version": 0}).json()["code"] == "invalid-request"
    assert client.get(path, params={"version": 2}).json()["code"] == "unknown-model"
