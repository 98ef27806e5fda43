"""/openapi.json says what every route really does: who needs a key, and what is answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TINY
from tests.support.server import running_server

PAGES = (
    "/",
    "/web/main.js",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/static-offline-docs/swagger-ui-bundle.js",
    "/openapi.json",
)
VALUES = {"{model}": TINY, "{name}": TINY, "{version}": "1", "{id}": "0" * 32}


def operations(client: httpx.Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, a path that can be asked for, and what is said about it."""
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for name, value in VALUES.items():
            path = path.replace(name, value)
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_what_is_said_to_need_a_key_needs_one(tiny_repository: Path) -> None:
    public, protected = set[str](), set[str]()
    with (
        running_server(tiny_repository, api_keys="the-key") as server,
        server.client() as client,
    ):
        schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
        for method, path, operation in operations(client):
            status = client.request(method, path).status_code
            said = {name for one in operation["security"] for name in one}
            assert (status == 401) == bool(said) == ("401" in operation["responses"]), path
            assert said in (set(), set(schemes))
            (protected if said else public).add(path)
        assert {client.get(path).status_code for path in PAGES} == {200}
    assert public == {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
    assert {"/classify", "/models", "/v2", f"/images/{'0' * 32}"} < protected


def test_without_keys_none_is_asked_for(client: httpx.Client) -> None:
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
    assert not [path for _, path, operation in operations(client) if "security" in operation]


def test_every_reference_has_its_component(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    referred = set(references(document))
    assert {name.removeprefix("#/components/schemas/") for name in referred} == set(
        document["components"]["schemas"]
    )


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_all_errors_share_two_schemas(client: httpx.Client) -> None:
    for _, path, operation in operations(client):
        named = "ProtocolError" if path.startswith("/v2") else "Problem"
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                if "examples" in content:
                    assert int(status) >= 400
                    assert content["schema"] == {"$ref": f"#/components/schemas/{named}"}


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/v2", "/models"])
def test_an_answer_has_the_only_type_that_is_documented(client: httpx.Client, path: str) -> None:
    answer = client.get("/openapi.json").json()["paths"][path]["get"]["responses"]["200"]
    assert list(answer["content"]) == [client.get(path).headers["content-type"].partition(";")[0]]


def test_no_parameter_may_be_null(client: httpx.Client) -> None:
    for _, path, operation in operations(client):
        for parameter in operation.get("parameters", ()):
            assert "null" not in str(parameter["schema"]), (path, parameter["name"])
