"""GET /monitor on a real server: what was measured is what the explain graph says of each image."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput

from models.arrays import Pixels
from models.collapse import neighbours
from models.drift import LEAST_IN_WINDOW
from models.manifest import Manifest
from models.preprocess import preprocess
from models.signals import Signals
from service.errors import UnknownModel
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT, VIT
from tests.service.http.v2_requests import RULE, image_request
from tests.service.oip.grpc.calls import address
from tests.support import small
from tests.support.crops import crops
from tests.support.pictures import png
from tests.support.server import Server, running_server
from tests.support.waiting import until

KEY = {"X-API-Key": "the-key"}
IMAGES = 60


@pytest.fixture(scope="module")
def watched() -> Iterator[Server]:
    with running_server(
        small.REPOSITORY, monitor_sample=1, api_keys="the-key", grpc_port=0
    ) as running:
        yield running


@pytest.fixture(scope="module")
def session(watched: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=watched.url, headers=KEY, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return list(crops(IMAGES, seed=3))


def found_of(session: httpx.Client, name: str = DEEPVIT) -> dict[str, Any]:
    (found,) = session.get("/monitor", params={"model": name}).raise_for_status().json()["models"]
    return dict(found)


def settled(session: httpx.Client, name: str = DEEPVIT) -> dict[str, Any]:
    until(lambda: found_of(session, name)["samples"]["waiting"] == 0)
    return found_of(session, name)


def classify(session: httpx.Client, picture: Image.Image, model: str = DEEPVIT) -> str:
    """The image's id, once nothing waits: so that no sample is dropped."""
    answer = session.post(f"/classify?model={model}", files={"image": png(picture)})
    settled(session, model)
    return str(answer.raise_for_status().json()["results"][0]["id"])


@pytest.fixture(scope="module")
def ids(session: httpx.Client, pictures: list[Image.Image]) -> list[str]:
    return [classify(session, picture) for picture in pictures]


@pytest.fixture(scope="module")
def found(session: httpx.Client, ids: list[str]) -> dict[str, Any]:
    assert len(ids) == IMAGES
    return settled(session)


def values(found: dict[str, Any], measure: str, stage: str | None, what: str) -> Any:
    (one,) = (
        one for one in found["measures"] if (one["measure"], one["stage"]) == (measure, stage)
    )
    return one[what]


def test_every_answered_image_is_measured(found: dict[str, Any]) -> None:
    assert found["samples"] == {"measured": IMAGES, "dropped": 0, "failed": 0, "waiting": 0}
    assert (found["window"]["images"], found["window"]["size"]) == (IMAGES, 100)
    assert found["window"]["since"].endswith("Z")


def test_means_are_those_of_the_explain_graph_on_the_same_images(
    found: dict[str, Any], pictures: list[Image.Image]
) -> None:
    engine = OnnxEngine(small.REPOSITORY / DEEPVIT / "1", EngineOptions(intra_op_threads=1))
    signals = Signals(engine.manifest)
    inputs = [preprocess(picture, RULE) for picture in pictures]
    read = [signals.read(engine.explain([one], signals.outputs)[0]) for one in inputs]
    means = np.concatenate([one["mean"] for one in found["measures"]])
    spreads = np.concatenate([one["spread"] for one in found["measures"]])
    np.testing.assert_allclose(means, np.mean(read, axis=0, dtype=np.float64), atol=2e-4)
    np.testing.assert_allclose(spreads, np.std(read, axis=0, dtype=np.float64), atol=2e-4)


@pytest.mark.parametrize("stage", ["softmax", "reattention"])
def test_means_are_those_of_similarity_of_the_same_images(
    session: httpx.Client, found: dict[str, Any], ids: list[str], stage: str
) -> None:
    """Independent of models/signals: from the answers of another endpoint."""
    answers = [
        session.get(f"/similarity?id={one}&model={DEEPVIT}&stage={stage}").json() for one in ids
    ]
    blocks = values(found, "similarity.column", stage, "blocks")
    matrices = np.array([one["matrix"]["column"] for one in answers], dtype=np.float64)
    column = np.mean([neighbours(matrix) for matrix in matrices], axis=0)
    mean = values(found, "similarity.column", stage, "mean")
    np.testing.assert_allclose(mean, column[blocks], atol=2e-4)
    if stage == "softmax":
        entropy = np.mean([one["entropy"] for one in answers], axis=(0, 2))
        np.testing.assert_allclose(values(found, "entropy", stage, "mean"), entropy, atol=2e-4)
    similar = [int(block) for block in np.flatnonzero(column > 0.9)]
    assert found["similar_blocks"][stage] == similar
    assert found_of(session)["samples"]["measured"] == IMAGES  # looking is no answer


def test_drift_is_the_largest_deviation_and_has_a_history(found: dict[str, Any]) -> None:
    manifest = Manifest.read((small.REPOSITORY / DEEPVIT / "1" / "manifest.json").read_text())
    assert manifest.reference is not None
    deviations = np.concatenate([one["deviation"] for one in found["measures"]])
    assert found["drift"] == pytest.approx(np.abs(deviations).max())
    assert found["alarm"] == (found["drift"] > manifest.reference.threshold)
    assert [abs(one["deviation"]) for one in found["strongest"]] == sorted(
        np.abs(deviations), reverse=True
    )[:5]
    assert [point["images"] for point in found["history"]] == list(
        range(LEAST_IN_WINDOW, IMAGES + 1, 10)
    )
    assert found["reference"] == {
        "images": manifest.reference.images,
        "window": manifest.reference.window,
        "threshold": manifest.reference.threshold,
        "false_alarms": manifest.reference.false_alarms,
    }
    shares = {one["label"]: one for one in found["classes"]["shares"]}
    assert sum(one["share"] for one in shares.values()) == pytest.approx(1, abs=1e-4)
    distance = sum(abs(one["share"] - one["reference"]) for one in shares.values()) / 2
    assert found["classes"]["distance"] == pytest.approx(distance, abs=1e-4)


def test_metrics_say_the_same(session: httpx.Client, found: dict[str, Any]) -> None:
    lines = dict(
        line.rsplit(" ", 1)
        for line in session.get("/metrics").text.splitlines()
        if line.startswith("deepvit_monitor_")
    )
    of = f'model="{DEEPVIT}"'
    measured = f'deepvit_monitor_samples_total{{{of},outcome="measured",version="1"}}'
    assert float(lines[measured]) == IMAGES
    assert float(lines[f'deepvit_monitor_drift{{{of},version="1"}}']) == pytest.approx(
        found["drift"], rel=1e-4
    )
    signal = f'block="7",measure="entropy",{of},stage="softmax",version="1"'
    for name, key in (("measure", "mean"), ("deviation", "deviation")):
        expected = values(found, "entropy", "softmax", key)[7]
        assert float(lines[f"deepvit_monitor_{name}{{{signal}}}"]) == pytest.approx(
            expected, rel=1e-4
        )
    confidence = f'block="",measure="confidence",{of},stage="",version="1"'
    assert f"deepvit_monitor_measure{{{confidence}}}" in lines
    buckets = f'block="3",{{}}{of},stage="softmax",version="1"'
    whole = "deepvit_monitor_similarity_bucket{" + buckets.format('le="+Inf",') + "}"
    assert float(lines[whole]) == IMAGES
    for stage in ("softmax", "reattention"):
        name = f'deepvit_monitor_similar_blocks{{{of},stage="{stage}",version="1"}}'
        assert float(lines[name]) == len(found["similar_blocks"][stage])


def test_answers_of_both_protocols_are_measured_too(
    watched: Server, session: httpx.Client, pictures: list[Image.Image]
) -> None:
    pixels: Pixels = preprocess(pictures[0], RULE)[None]
    request = image_request(pixels)
    session.post(f"/v2/models/{VIT}/infer", json=request).raise_for_status()
    assert settled(session, VIT)["samples"]["measured"] == 1
    tensor = InferInput("images", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    with InferenceServerClient(address(watched)) as client:
        client.infer(VIT, [tensor], headers={"x-api-key": "the-key"})
    found = settled(session, VIT)
    assert found["samples"]["measured"] == 2
    assert found["similar_blocks"].keys() == {"softmax"}
    assert (found["drift"], found["alarm"], found["classes"]["distance"]) == (None, None, None)


def test_all_served_versions_or_one(session: httpx.Client) -> None:
    def names(query: str) -> list[tuple[str, int]]:
        models = session.get(f"/monitor{query}").json()["models"]
        return [(one["model"], one["version"]) for one in models]

    assert names("") == [(DEEPVIT, 1), (VIT, 1)]
    assert names(f"?model={VIT}&version=1") == [(VIT, 1)]
    for query in ("?model=none", f"?model={DEEPVIT}&version=2", "?version=2"):
        refused = session.get(f"/monitor{query}")
        assert (refused.status_code, refused.json()["code"]) == (404, UnknownModel.code)
    assert session.get("/monitor?modell=x").status_code == 422


def test_it_needs_a_key_and_is_not_kept(watched: Server, session: httpx.Client) -> None:
    assert httpx.get(f"{watched.url}/monitor").status_code == 401
    assert session.get("/monitor").headers["cache-control"] == "no-store"


def test_it_is_off_by_default(client: httpx.Client, photo: bytes) -> None:
    client.post("/classify", files={"image": photo}).raise_for_status()
    found = client.get("/monitor").json()
    assert found["sample"] == 0
    for one in found["models"]:
        assert set(one["samples"].values()) == {0}
        assert (one["window"]["images"], one["measures"], one["drift"]) == (0, [], None)
    assert "deepvit_monitor_" not in client.get("/metrics").text


def test_a_burst_is_answered_and_what_finds_no_time_is_dropped(
    session: httpx.Client, photo: bytes
) -> None:
    before = settled(session, VIT)["samples"]
    files = [("image", (f"{number}.jpg", io.BytesIO(photo))) for number in range(32)]
    for _ in range(3):
        session.post(f"/classify?model={VIT}", files=files).raise_for_status()
    after = settled(session, VIT)["samples"]
    assert sum(after.values()) == sum(before.values()) + 96
    assert after["dropped"] > before["dropped"]
    assert after["failed"] == 0
