"""A client that openapi-python-client generates from /openapi.json understands every answer."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import errors
from tests.conftest import DEEPVIT
from tests.support.server import Server

CONFIG = f"""
post_hooks: ["{sys.executable} -P -m ruff format --no-cache ."]
content_type_overrides:
  image/png: application/octet-stream
  image/*: application/octet-stream
"""
PACKAGE = "generated_deepvit_client"


@pytest.fixture(scope="module")
def package(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the generated package, which can be imported."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yaml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
        *("--url", f"{server.url}/openapi.json", "--config", str(folder / "config.yaml")),
        *("--meta", "none", "--output-path", str(folder / PACKAGE)),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    yield folder / PACKAGE
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def module(package: Path, operation: str) -> Any:
    """The module of an operation, by its id."""
    (path,) = package.glob(f"api/*/{re.sub('_+', '_', operation)}.py")
    return importlib.import_module(f"{PACKAGE}.api.{path.parent.name}.{path.stem}")


@pytest.fixture
def api(server: Server, package: Path) -> Iterator[Any]:
    client = importlib.import_module(f"{package.name}.client").Client
    with client(base_url=server.url) as session:
        yield session


def test_every_documented_error_is_understood(package: Path, server: Server, api: Any) -> None:
    """Each error of each operation, in the form in which the service sends it."""
    with server.client() as client:
        paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    understood = set()
    for path, operation in [(path, one) for path, of in paths.items() for one in of.values()]:
        called = module(package, operation["operationId"])
        for error in documented(operation):
            body: dict[str, Any] = {"error": "x"}
            if not path.startswith("/v2"):
                body = {"detail": "x", "instance": path, "request_id": "x", "type": "urn:x"}
                body |= {"code": error.code, "title": error.title, "status": error.status}
            answer = httpx.Response(error.status, content=json.dumps(body))
            parsed = called._parse_response(client=api, response=answer)
            assert parsed.to_dict() == body
            understood.add(error)
    assert errors.QueueFull in understood
    assert errors.NotReady in understood


def documented(operation: dict[str, Any]) -> Iterator[type[errors.ServiceError]]:
    by_code = {error.code: error for error in errors.ServiceError.__subclasses__()}
    by_code[errors.ServiceError.code] = errors.ServiceError
    for answer in operation["responses"].values():
        for content in answer.get("content", {}).values():
            yield from (by_code[code] for code in content.get("examples", {}))


def test_errors_of_the_service_are_parsed(package: Path, api: Any, photo: bytes) -> None:
    types = importlib.import_module(f"{PACKAGE}.types")
    form = importlib.import_module(f"{PACKAGE}.models").ClassifyClassifyPostFilesBody
    classify = module(package, "classify_classify_post").sync_detailed

    def posted(*images: bytes, **query: Any) -> Any:
        files = [types.File(data, file_name="image") for data in images]
        return classify(client=api, body=form(image=files), **query)

    assert posted(photo).parsed.results[0].predictions[0].label == "cat"
    show_image = module(package, "show_image_images__id__get").sync_detailed
    for answer, status, code in (
        (posted(photo, model="x"), 404, "unknown-model"),
        (posted(b"no image"), 415, "unsupported-media"),
        (posted(photo[:5000]), 400, "corrupt-image"),
        (posted(*[photo] * 33), 413, "too-many-images"),
        (posted(photo, top_k=0), 422, "invalid-request"),
        (posted(*[photo] * 16, x_request_timeout_ms=1), 504, "deadline-exceeded"),
        (show_image("0" * 32, client=api), 404, "unknown-image"),
    ):
        assert (answer.status_code, answer.parsed.code) == (HTTPStatus(status), code)
    ready = module(package, "model_ready_v2_models__model__ready_get").sync_detailed
    assert "no model x" in ready("x", client=api).parsed.error
    assert ready(DEEPVIT, client=api).parsed.ready


def test_answers_that_are_not_json_are_parsed(package: Path, api: Any, photo: bytes) -> None:
    with httpx.Client(base_url=api._base_url) as client:
        image_id = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    png = module(package, "show_image_images__id__get").sync(image_id, client=api)
    assert png.payload.read().startswith(b"\x89PNG")
    metrics = module(package, "show_metrics_metrics_get").sync(client=api)
    assert "deepvit_requests_total" in metrics
