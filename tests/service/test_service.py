"""The process: start, health, documentation, limits of answers and of memory, shutdown."""

import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service import __version__, errors
from tests.conftest import DEEPVIT, VIT
from tests.support.pictures import png
from tests.support.server import ROOT, Server, failed_start, running_server


def test_importing_the_service_does_not_load_torch() -> None:
    code = "import sys, service.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_one_version_is_told_everywhere(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["info"]["version"] == __version__
    assert client.get("/v2").json()["version"] == __version__
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    source = package["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert source == "service.__version__"
    assert "version" in package["project"]["dynamic"]


def test_health_names_the_models_and_their_providers(client: httpx.Client) -> None:
    for path, status in (("/livez", "alive"), ("/readyz", "ready")):
        response = client.get(path)
        assert response.status_code == 200
        assert response.json() == {
            "status": status,
            "models": {DEEPVIT: "cpu", VIT: "cpu"},
            "store": "memory",
        }


def test_models_are_listed_and_described(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert list(models) == [DEEPVIT, VIT]
    assert models[DEEPVIT]["default"]
    assert models[DEEPVIT]["reattention_blocks"] == list(range(16))
    assert models[VIT]["reattention_blocks"] == []
    detail = client.get(models[DEEPVIT]["url"]).json()
    assert detail["manifest"]["config"]["embed_dim"] == 96
    theta = detail["manifest"]["reattention"][3]["theta"]
    assert [len(row) for row in theta] == [6] * 6
    assert client.get("/models/none").json()["code"] == "unknown-model"


def test_head_is_answered_as_get_without_the_body(client: httpx.Client, photo: bytes) -> None:
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    found = client.post("/classify", files={"image": photo}).json()["results"][0]
    values = {"{name}": DEEPVIT, "{version}": "1", "{id}": found["id"], "{model_name}": DEEPVIT}
    asked = ["/", "/docs", "/openapi.json", "/web/main.js", *found["links"].values()]
    for path, operations in paths.items():
        if "get" in operations:
            for name, value in values.items():
                path = path.replace(name, value)
            asked.append(path)
    for path in asked:
        got, head = client.get(path), client.head(path)
        assert head.content == b""
        assert head.status_code == got.status_code, path
        for header in ("content-type", "content-length", "etag"):
            if path != "/metrics" or header != "content-length":
                assert head.headers.get(header) == got.headers.get(header), (path, header)
    assert client.get("/livez").status_code == 200  # on the same connection


def test_every_error_a_client_can_get_is_documented(client: httpx.Client) -> None:
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    documented = {
        (int(status), code)
        for path in paths.values()
        for operation in path.values()
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for code in content.get("examples", {})
    }
    tree: list[type[errors.ServiceError]] = [
        errors.ServiceError,
        *errors.ServiceError.__subclasses__(),
    ]
    unseen = {errors.StartupError, errors.UnreadableFile, errors.ClientGone}
    assert documented == {(e.status, e.code) for e in tree if e not in unseen}


def test_the_documentation_page_loads_nothing_from_other_servers(client: httpx.Client) -> None:
    assert 'href="docs"' in client.get("/").text
    assert "http" not in client.get("/docs").text.replace("http-equiv", "")


def test_request_ids_are_kept_or_created(client: httpx.Client) -> None:
    kept = client.get("/models/none", headers={"X-Request-Id": "abc-1"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "abc-1"
    made = client.get("/models/none", headers={"X-Request-Id": "bad id\\n"})
    assert made.headers["x-request-id"] == made.json()["request_id"] != "bad id\\n"


def test_unknown_paths_and_methods_are_problems_too(client: httpx.Client) -> None:
    for response, status in ((client.get("/nothing"), 404), (client.get("/classify"), 405)):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == status


def test_answers_and_stored_images_are_limited(repository: Path) -> None:
    images = [png(Image.new("RGB", (32, 32), (10 * i, 0, 0))) for i in range(4)]
    with (
        running_server(repository, store_max_bytes=3 * 3072, max_answer_bytes=100_000) as server,
        server.client() as client,
    ):
        ids = [
            client.post("/classify", files={"image": image}).json()["results"][0]["id"]
            for image in images
        ]
        gone = client.get("/similarity", params={"id": ids[0]})
        assert (gone.status_code, gone.json()["code"]) == (404, "expired-image")
        assert client.get("/similarity", params={"id": ids[3]}).status_code == 200
        whole = {"id": ids[3], "query": "all", "head": "all"}
        refused = client.get("/attention-maps", params=whole)
        assert (refused.status_code, refused.json()["code"]) == (422, "answer-too-large")
        assert client.get("/attention-maps", params={"id": ids[3]}).status_code == 200


def test_sigterm_ends_with_status_0(repository: Path) -> None:
    with running_server(repository) as server:
        assert server.terminate() == 0


def broken(repository: Path, folder: Path, file: str, content: bytes) -> Path:
    """A copy of one model with one damaged file."""
    version = folder / VIT / "1"
    version.mkdir(parents=True)
    for path in (repository / VIT / "1").iterdir():
        (version / path.name).write_bytes(content if path.name == file else path.read_bytes())
    return folder


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "weights.bin"])
def test_a_damaged_model_ends_the_start_with_one_line(
    repository: Path, tmp_path: Path, file: str
) -> None:
    folder = broken(repository, tmp_path, file, b"{}")
    status, said = failed_start("--model-repository", str(folder))
    assert status == 1
    assert len(said.splitlines()) == 1
    assert str(tmp_path) in said


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ((), "address already in use"),
        (("--host", "203.0.113.7"), "cannot assign requested address"),
        (("--host", "nothing.invalid"), "name"),
    ],
    ids=["in use", "of another machine", "unknown"],
)
def test_an_address_that_is_not_to_be_had_stops_the_start_with_one_line(
    repository: Path, address: tuple[str, ...], reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = failed_start(
            "--port", str(port), *address, "--model-repository", str(repository)
        )
    assert status == 1
    (line,) = said.splitlines()
    assert line.startswith("service: cannot listen on ")
    assert reason in line.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-repository", "/nowhere"], "no model in /nowhere"),
        (["--max-batch-size", "0"], "max_batch_size: Input should be greater than"),
        (["--default-model", "none"], "no model none in"),
        (["--store-url", "http://:secret@cache"], "store_url: not redis://"),
        (["--provider", "cuda"], "provider cuda was asked for, but ONNX Runtime has"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(
    repository: Path, arguments: list[str], message: str
) -> None:
    if "--model-repository" not in arguments:
        arguments = ["--model-repository", str(repository), *arguments]
    status, said = failed_start(*arguments)
    assert status == 1
    assert said.startswith(f"service: {'wrong setting: ' if '_' in message else ''}")
    assert message in said
    assert len(said.splitlines()) == 1


def test_the_log_has_no_traceback(server: Server) -> None:
    """Last in this file, after requests of every kind."""
    assert "Traceback" not in "".join(server.log)
