"""/v2/repository: models are loaded and unloaded on request, also while others are in use."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from tests.conftest import DEEPVIT, VIT
from tests.service.http.v2_requests import INFER, error, image_request, tensor
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.server import running_server
from tests.support.versions import add_version, copied

REPOSITORY = f"/v2/repository/models/{VIT}"


def test_loading_and_unloading_a_model_disturbs_no_other(repository: Path, photo: bytes) -> None:
    """Under traffic; concurrent loads and unloads end in one consistent state."""
    with running_server(repository) as server, server.client() as client:
        before = answers_of_both_models(client, photo)
        over = threading.Event()

        def traffic(model: str) -> set[tuple[int, str]]:
            """Each status with the best class or the error code."""
            seen = set()
            while not over.is_set():
                found = client.post(f"/classify?model={model}", files={"image": photo})
                answer = found.json()
                best = "code" not in answer and answer["results"][0]["predictions"][0]["label"]
                seen.add((found.status_code, best or answer["code"]))
            return seen

        def order(verb: str) -> int:
            return client.post(f"{REPOSITORY}/{verb}").status_code

        with ThreadPoolExecutor(12) as pool:
            steady = [pool.submit(traffic, DEEPVIT) for _ in range(2)]
            moving = pool.submit(traffic, VIT)
            try:
                for _ in range(3):
                    assert order("unload") == 200
                    gone = client.post(f"/classify?model={VIT}", files={"image": photo})
                    assert (gone.status_code, gone.json()["code"]) == (404, "unknown-model")
                    assert order("load") == 200
                    assert client.get(f"/v2/models/{VIT}/ready").status_code == 200
                statuses = set(pool.map(order, ["load", "unload", "unload", "load"] * 4))
            finally:
                over.set()
            for future in steady:
                assert future.result() == {(200, before[1][0]["label"])}
            assert moving.result() <= {(200, before[4][0]["label"]), (404, "unknown-model")}
        assert statuses <= {200, 404}
        ready = client.get(f"/v2/models/{VIT}/ready").status_code == 200
        listed = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in listed] == [DEEPVIT, *([VIT] if ready else [])]
        assert order("load") == 200
        assert answers_of_both_models(client, photo) == before
        counts = settled_counts(client)
        assert counts["failed"] == counts["cancelled"] == counts["expired"] == 0
    assert "Traceback" not in "".join(server.log)


def test_models_are_loaded_and_unloaded_on_request(
    repository: Path, pixels: Pixels, tmp_path: Path
) -> None:
    copied(repository, tmp_path)
    with (
        running_server(tmp_path, served_versions=2) as server,
        server.client() as client,
        InferenceServerClient(server.url.removeprefix("http://")) as triton,
    ):
        add_version(repository, tmp_path)
        assert triton.get_model_metadata(DEEPVIT)["versions"] == ["1"]
        triton.load_model(DEEPVIT)
        for version in ("", "1"):
            assert triton.get_model_metadata(DEEPVIT, version)["versions"] == ["1", "2"]
            answer = triton.infer(DEEPVIT, [tensor(pixels)], version).get_response()
            assert answer["model_version"] == (version or "2")
        config = triton.get_model_config(DEEPVIT)
        assert config["version_policy"] == {"latest": {"num_versions": 2}}
        triton.unload_model(DEEPVIT)
        assert not triton.is_model_ready(DEEPVIT)
        assert not triton.is_server_ready()  # no model is served
        assert (client.get("/readyz").status_code, client.get("/livez").status_code) == (503, 200)
        assert triton.get_model_repository_index() == [
            {"name": DEEPVIT, "version": version, "state": "UNAVAILABLE", "reason": "unloaded"}
            for version in ("1", "2")
        ]
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        with pytest.raises(InferenceServerException, match="No such model"):
            triton.infer(DEEPVIT, [tensor(pixels)])
        triton.load_model(DEEPVIT)
        assert triton.is_model_ready(DEEPVIT, "2")
        shutil.copytree(repository / VIT, tmp_path / VIT)  # not loaded until someone asks for it
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [(entry["version"], entry["state"]) for entry in ready] == [
            ("1", "READY"),
            ("2", "READY"),
        ]
        assert triton.get_model_repository_index() == [
            *ready,
            {"name": VIT},
        ]
        loading = f"/v2/repository/models/{DEEPVIT}/load"
        answer = client.post(loading)
        assert (answer.status_code, answer.content) == (200, b"")
        for path, body, status in [
            ("/v2/repository/models/resnet/load", b"", 404),
            ("/v2/repository/models/resnet/unload", b"", 404),
            ("/v2/repository/models/%2e%2e/load", b"", 404),
            ("/v2/repository/models/.staged/load", b"", 404),
            ("/v2/repository/models/%00/load", b"", 404),
            (loading, b'{"parameters": {"config": "{}"}}', 400),
            (loading, b"{", 400),
            (loading, b"[]", 400),
            (loading, b" " * 100_000, 413),
        ]:
            refused = client.post(path, content=body)
            assert (refused.status_code, bool(error(refused))) == (status, True), path


def test_a_version_that_cannot_be_loaded_is_listed_with_the_reason(
    repository: Path, pixels: Pixels, tmp_path: Path
) -> None:
    copied(repository, tmp_path)
    with (
        running_server(tmp_path) as server,
        server.client() as client,
    ):
        add_version(repository, tmp_path, damage=True)
        failed = client.post(f"/v2/repository/models/{DEEPVIT}/load")
        assert failed.status_code == 400
        assert error(failed).startswith("The model cannot be loaded: ")
        index = client.post("/v2/repository/index").json()
        assert [(entry.get("version"), entry["state"]) for entry in index] == [
            ("1", "READY"),
            (None, "UNAVAILABLE"),
        ]
        assert index[1]["name"] == DEEPVIT
        assert "not copied completely yet" in index[1]["reason"]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert ready == index[:1]
        assert client.post(INFER, json=image_request(pixels)).json()["model_version"] == "1"
