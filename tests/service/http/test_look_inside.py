"""GET /attention-maps and GET /similarity on a real server: numbers equal PyTorch's."""

import io
import json
from functools import reduce
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from export.verify import normalize
from models import checkpoint, measures
from models.arrays import Float64Array, Pixels
from models.collapse import VARIANTS
from models.deepvit import BlockTrace
from models.preprocess import preprocess
from tests.conftest import DEEPVIT, VIT
from tests.support import equation_2, small

N, GRID, BLOCKS, HEADS = 65, 8, 16, 6


@pytest.fixture(scope="module")
def image_id(client: httpx.Client, photo: bytes) -> str:
    found: str = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    return found


def seen(photo: bytes, model: str) -> tuple[Pixels, list[BlockTrace]]:
    """The input that PyTorch gets from the photo, and its trace of every block."""
    trained = checkpoint.load(small.weights(model))
    pixels = preprocess(Image.open(io.BytesIO(photo)), trained.preprocessing)
    with torch.inference_mode():
        _, traces = trained.network().trace(normalize(pixels[None], trained.preprocessing))
    return pixels, traces


def stacked(traces: list[BlockTrace], stage: str) -> torch.Tensor:
    return torch.stack([getattr(trace, stage) for trace in traces], dim=1)  # [1, L, H, N, N]


def get(client: httpx.Client, path: str, **query: Any) -> dict[str, Any]:
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("model", [DEEPVIT, VIT])
@pytest.mark.parametrize("stage", ["softmax", "reattention"])
def test_whole_maps_equal_pytorch(
    client: httpx.Client, photo: bytes, image_id: str, model: str, stage: str
) -> None:
    maps = stacked(seen(photo, model)[1], stage)[0].numpy()
    query = {"id": image_id, "model": model, "stage": stage, "query": "all", "head": "all"}
    answer = client.get("/attention-maps", params=query | {"format": "npy"})
    values = np.load(io.BytesIO(answer.content))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, maps, atol=2e-4 * np.abs(maps).max())
    facts = json.loads(answer.headers["x-attention-maps"])
    assert facts["shape"] == [BLOCKS, HEADS, N, N]
    assert facts["axes"] == ["layer", "head", "query", "key"]
    assert facts["stage"] == stage
    assert facts["range"] == [float(values.min()), float(values.max())]


def test_rows_of_served_reattention_maps_sum_to_the_manifest_constant(
    client: httpx.Client, image_id: str
) -> None:
    manifest = get(client, f"/models/{DEEPVIT}")["manifest"]
    query = {"id": image_id, "query": "all", "head": "all", "format": "npy"}
    maps = np.load(io.BytesIO(client.get("/attention-maps", params=query).content))
    assert len(manifest["reattention"]) == BLOCKS
    for row in manifest["reattention"]:
        sums = maps[row["block"]].sum(axis=-1, dtype=np.float64)  # [H, N]
        constant = np.array(row["row_sum"])[:, None]
        assert np.abs(sums - constant).max() < 1e-4, row["block"]


def test_query_direction_and_heads_select_rows_and_columns(
    client: httpx.Client, image_id: str
) -> None:
    maps = np.array(get(client, "/attention-maps", id=image_id, query="all", head="all")["values"])
    patch = 1 + 2 * GRID + 5

    def values(**query: str) -> Float64Array:
        return np.array(get(client, "/attention-maps", id=image_id, **query)["values"])

    np.testing.assert_allclose(values(head="all"), maps[:, :, 0], atol=1e-5)
    np.testing.assert_allclose(
        values(layer="3", head="1,4", query="2,5"), maps[3:4, [1, 4], patch], atol=1e-5
    )
    np.testing.assert_allclose(
        values(layer="15", head="all", query="2,5", direction="to"),
        maps[15:, :, :, patch],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        values(layer="0", head="max_abs"),
        np.abs(maps[:1, :, 0]).max(axis=1, keepdims=True),
        atol=1e-5,
    )


def test_rollout_is_the_softmax_product(client: httpx.Client, photo: bytes, image_id: str) -> None:
    maps = [trace.softmax for trace in seen(photo, DEEPVIT)[1]]
    expected = reduce(measures.rollout, maps, None)
    assert expected is not None
    answer = get(
        client, "/attention-maps", id=image_id, layer="rollout", stage="softmax", query="all"
    )
    np.testing.assert_allclose(answer["values"][0][0], expected[0].numpy(), atol=1e-6)
    assert answer["layers"] == ["rollout"]


def test_npz_holds_maps_input_and_facts(client: httpx.Client, photo: bytes, image_id: str) -> None:
    pixels, _ = seen(photo, DEEPVIT)
    query = {"id": image_id, "format": "npz", "layer": "0"}
    with np.load(io.BytesIO(client.get("/attention-maps", params=query).content)) as found:
        assert found["maps"].shape == (1, 1, N)
        np.testing.assert_array_equal(found["input"], pixels)
        assert json.loads(str(found["facts"]))["id"] == image_id


def test_similarity_equals_equation_2_on_pytorch_maps(
    client: httpx.Client, photo: bytes, image_id: str
) -> None:
    for model in (DEEPVIT, VIT):
        _, traces = seen(photo, model)
        for stage in ("softmax", "reattention"):
            maps = stacked(traces, stage)
            found = get(client, "/similarity", id=image_id, model=model, stage=stage)
            assert found["stage"] == stage
            blocks = maps.unbind(1)
            for variant in VARIANTS:
                expected = equation_2.layer_similarity(blocks, variant)[0].numpy()
                np.testing.assert_allclose(found["matrix"][variant], expected, atol=5e-4)
            pairs = equation_2.neighbour_similarity(blocks)[0]
            np.testing.assert_allclose(
                found["neighbours"]["mean"], pairs.mean(dim=(1, 2)).numpy(), atol=5e-4
            )
            heads = equation_2.head_similarity(blocks)[0].numpy()
            np.testing.assert_allclose(found["heads"], heads, atol=5e-4)
            if stage == "softmax":
                entropy = measures.entropy(maps)[0].numpy()
                np.testing.assert_allclose(found["entropy"], entropy, atol=1e-4)
            else:
                assert found["entropy"] is None


def test_the_two_bundled_models_can_be_compared_on_one_image(
    client: httpx.Client, image_id: str
) -> None:
    """As the checkpoints' card says: collapsed before the mixing, diverse after it."""
    counts = {
        (model, stage): get(client, "/similarity", id=image_id, model=model, stage=stage)[
            "similar_blocks"
        ]["count"]
        for model in (DEEPVIT, VIT)
        for stage in ("softmax", "reattention")
    }
    assert counts == {
        (DEEPVIT, "softmax"): 15,
        (DEEPVIT, "reattention"): 0,
        (VIT, "softmax"): 0,
        (VIT, "reattention"): 0,
    }


def test_the_threshold_decides_what_is_similar(client: httpx.Client, image_id: str) -> None:
    found = get(client, "/similarity", id=image_id, model=VIT, stage="softmax", threshold=0.6)
    similar = [i + 1 for i, value in enumerate(found["neighbours"]["mean"]) if value > 0.6]
    assert 0 < len(similar) < BLOCKS - 1
    assert found["similar_blocks"] == {
        "threshold": 0.6,
        "count": len(similar),
        "share": pytest.approx(len(similar) / (BLOCKS - 1), abs=1e-6),
        "blocks": similar,
    }


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"id": "0" * 32}, 404, "unknown-image"),
        ({"id": "short"}, 422, "invalid-request"),
        ({}, 422, "invalid-request"),
        ({"layer": "16"}, 422, "invalid-selection"),
        ({"layer": "rollout"}, 422, "invalid-selection"),
        ({"head": "6"}, 422, "invalid-selection"),
        ({"query": "8,0"}, 422, "invalid-selection"),
        ({"query": "-1,0"}, 422, "invalid-selection"),
        ({"direction": "both"}, 422, "invalid-request"),
        ({"format": "gif"}, 422, "invalid-request"),
        ({"model": "none"}, 404, "unknown-model"),
    ],
)
def test_impossible_parameters_are_refused(
    client: httpx.Client, image_id: str, query: dict[str, str], status: int, code: str
) -> None:
    asked = query if query.keys() <= {"id"} else {"id": image_id} | query
    response = client.get("/attention-maps", params=asked)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
