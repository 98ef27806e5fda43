"""Served networks that are not square, have no class token, or several right classes."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from tritonclient import grpc as over_grpc
from tritonclient import http as over_http

from export.verify import normalize
from models import checkpoint, measures
from models.arrays import Pixels
from models.collapse import VARIANTS
from models.deepvit import BlockTrace
from models.preprocess import preprocess
from tests.service.oip.grpc.calls import address
from tests.support import equation_2
from tests.support.answers import results
from tests.support.panels import canvas_of, colours, corners, framed
from tests.support.server import Server
from tests.support.unusual import (
    REGISTERS,
    TALL,
    UNUSUAL,
    WIDE,
    YES_OR_NO,
    config_of,
    labels_of,
    preprocessing_of,
    weights_of,
)
from tests.support.waiting import until

STEP = 4  # of 256, by which neighbouring colours of a scale differ


@pytest.fixture(scope="module")
def client(unusual_server: Server) -> Any:
    with unusual_server.client() as session:
        yield session


def classified(client: httpx.Client, photo: bytes, name: str, **query: Any) -> dict[str, Any]:
    params = {"model": name} | query
    (result,) = results(client.post("/classify", params=params, files={"image": photo}))
    return result


def seen(photo: bytes, name: str) -> Pixels:
    return preprocess(Image.open(io.BytesIO(photo)), preprocessing_of(name))


def trace(repository: Path, photo: bytes, name: str) -> tuple[torch.Tensor, list[BlockTrace]]:
    """Logits [classes] and every block's trace, by PyTorch."""
    source = checkpoint.load(weights_of(repository, name))
    with torch.inference_mode():
        images = normalize(seen(photo, name)[None], source.preprocessing)
        logits, traces = source.network().trace(images)
    return logits[0], traces


@pytest.mark.parametrize("name", UNUSUAL)
def test_probabilities_are_those_of_pytorch(
    client: httpx.Client, unusual_repository: Path, photo: bytes, name: str
) -> None:
    logits, _ = trace(unusual_repository, photo, name)
    scores = config_of(name).scores
    expected = (logits.sigmoid() if scores == "sigmoid" else logits.softmax(dim=-1)).numpy()
    params = {"model": name, "top_k": "6"}
    answer = client.post("/classify", params=params, files={"image": photo}).json()
    assert answer["scores"] == scores
    predictions = answer["results"][0]["predictions"]
    best = list(np.argsort(-expected)[:6])
    assert [one["index"] for one in predictions] == best
    assert [one["label"] for one in predictions] == [labels_of(name)[index] for index in best]
    found = [one["probability"] for one in predictions]
    assert found == pytest.approx(expected[best].tolist(), abs=2e-5)
    assert (sum(found) > 1.01) == (name == REGISTERS)


@pytest.mark.parametrize("name", UNUSUAL)
def test_the_input_is_the_prepared_picture(client: httpx.Client, photo: bytes, name: str) -> None:
    image_id = classified(client, photo, name)["id"]
    with Image.open(io.BytesIO(client.get(f"/images/{image_id}").content)) as png:
        np.testing.assert_array_equal(np.asarray(png), seen(photo, name))


def test_the_list_of_models_has_sizes_and_scores(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]
    assert {model["name"]: (model["input_size"], model["scores"]) for model in models} == {
        WIDE: ([48, 128], "softmax"),
        TALL: ([64, 32], "softmax"),
        REGISTERS: (32, "sigmoid"),
        YES_OR_NO: (32, "sigmoid"),
    }


@pytest.mark.parametrize("name", UNUSUAL)
def test_maps_are_those_of_pytorch_in_every_format(
    client: httpx.Client, unusual_repository: Path, photo: bytes, name: str
) -> None:
    config = config_of(name)
    _, traces = trace(unusual_repository, photo, name)
    maps = np.stack([block.reattention[0].numpy() for block in traces])  # [L, H, N, N]
    middle = (config.grid.height // 2) * config.grid.width + config.grid.width // 2
    first = 0 if config.class_token else config.prefix_tokens + middle
    result = classified(client, photo, name, attention="true")
    query = {"id": result["id"], "model": name, "head": "all"}
    found = {
        kind: client.get("/attention-maps", params=query | {"format": kind})
        for kind in ("json", "npy", "npz")
    }
    answer = found["json"].json()
    assert answer["query"] == config.default_query
    assert answer["grid"] == [*config.grid]
    assert json.loads(found["npy"].headers["X-Attention-Maps"])["query"] == config.default_query
    with np.load(io.BytesIO(found["npz"].content)) as arrays:
        np.testing.assert_array_equal(arrays["input"], seen(photo, name))
        values = arrays["maps"]
    np.testing.assert_allclose(values, maps[:, :, first], atol=5e-5)
    np.testing.assert_array_equal(np.load(io.BytesIO(found["npy"].content)), values)
    np.testing.assert_array_equal(np.float32(answer["values"]), values)
    assert result["attention"]["query"] == config.default_query
    np.testing.assert_allclose(np.float32(result["attention"]["values"]), values, atol=1e-6)
    row, column = config.grid.height - 1, config.grid.width - 2
    query |= {"query": f"{row},{column}", "direction": "to"}
    to = np.float32(client.get("/attention-maps", params=query).json()["values"])
    token = config.prefix_tokens + row * config.grid.width + column
    np.testing.assert_allclose(to, maps[:, :, :, token], atol=5e-5)


@pytest.mark.parametrize("name", [TALL, REGISTERS])
def test_a_class_token_that_is_not_there_is_refused(
    client: httpx.Client, photo: bytes, name: str
) -> None:
    query = {"id": classified(client, photo, name)["id"], "model": name, "query": "cls"}
    refused = client.get("/attention-maps", params=query)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-selection")
    assert "has no class token" in refused.json()["detail"]


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("overlay", ["false", "true"])
def test_cells_of_pictures_have_the_proportions_of_patches(
    client: httpx.Client, photo: bytes, name: str, overlay: str
) -> None:
    config = config_of(name)
    query = {"id": classified(client, photo, name)["id"], "model": name, "head": "all"}
    query |= {"stage": "softmax", "query": "2,3", "overlay": overlay}
    values = np.array(client.get("/attention-maps", params=query).json()["values"])
    values = values[..., config.prefix_tokens :].reshape(2, 3, *config.grid)
    png = client.get("/attention-maps", params=query | {"format": "png"}).content
    panels = framed(canvas_of(png))
    assert panels.shape[:2] == (2, 3)
    height, width = panels.shape[2:4]
    assert height * config.img_size.width == width * config.img_size.height
    expected = colours(values / values.max(), signed=False)
    if overlay == "true":
        grey = seen(photo, name).mean(axis=-1, keepdims=True)
        for axis in (0, 1):
            expected = expected.repeat(config.patch_size[axis], axis=2 + axis)
        expected = 0.65 * expected + 0.35 * grey
    found = corners(panels, *expected.shape[2:4])
    tall, wide = height // config.grid.height, width // config.grid.width
    black = (panels[0, 0] == 0).all(axis=-1)  # the outline, and numbers away from the edges
    assert [*np.flatnonzero(black[2 * tall])] == [*range(3 * wide, 4 * wide)]
    assert [*np.flatnonzero(black[:, 3 * wide])] == [*range(2 * tall, 3 * tall)]
    differ = np.abs(found - expected).max(axis=(0, 1, 4)) > STEP
    if overlay == "true":  # pixels of the outline
        patch = config.patch_size
        differ[2 * patch.height : 3 * patch.height, 3 * patch.width : 4 * patch.width] = False
    assert not differ.any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (WIDE, "token 0 is the class token"),
        (TALL, "tokens are patches, row by row"),
        (REGISTERS, "patches follow 2 registers"),
    ],
)
def test_a_picture_of_whole_maps_says_what_its_tokens_are(
    client: httpx.Client, photo: bytes, name: str, words: str
) -> None:
    query = {"id": classified(client, photo, name)["id"], "model": name, "format": "png"}
    content = client.get("/attention-maps", params=query | {"query": "all"}).content
    with Image.open(io.BytesIO(content)) as picture:
        assert words in picture.info["Description"]
    if not config_of(name).class_token:
        with Image.open(io.BytesIO(client.get("/attention-maps", params=query).content)) as picture:
            first = config_of(name).default_query
            assert f"What the outlined patch {first} attends to" in picture.info["Description"]


@pytest.mark.parametrize("name", UNUSUAL)
def test_similarity_is_that_of_pytorch(
    client: httpx.Client, unusual_repository: Path, photo: bytes, name: str
) -> None:
    config = config_of(name)
    _, traces = trace(unusual_repository, photo, name)
    maps = [block.softmax for block in traces]  # [1, H, N, N] each
    query = {"id": classified(client, photo, name)["id"], "model": name, "stage": "softmax"}
    found = client.get("/similarity", params=query).json()
    for variant in VARIANTS:
        expected = equation_2.layer_similarity(maps, variant)[0].numpy()
        np.testing.assert_allclose(found["matrix"][variant], expected, atol=5e-4)
    reach = measures.reach(config.grid, config.patch_size, config.prefix_tokens)
    for block, values in enumerate(maps):
        entropy = measures.entropy(values)[0].numpy()
        distance = measures.attention_distance(values, reach, config.prefix_tokens)[0].numpy()
        np.testing.assert_allclose(found["entropy"][block], entropy, atol=1e-4)
        np.testing.assert_allclose(found["attention_distance"][block], distance, rtol=1e-4)


def test_an_input_of_another_shape_is_told_by_both_sizes(
    client: httpx.Client, photo: bytes
) -> None:
    query = {"id": classified(client, photo, WIDE)["id"], "model": TALL}
    refused = client.get("/similarity", params=query)
    assert (refused.status_code, refused.json()["code"]) == (409, "input-mismatch")
    assert "was prepared at 48 x 128 px and tall takes 64 x 32 px" in refused.json()["detail"]


def test_the_open_inference_protocol_has_height_and_width_and_scores(
    unusual_server: Server,
) -> None:
    with over_http.InferenceServerClient(unusual_server.url.removeprefix("http://")) as triton:
        (tensor,) = triton.get_model_metadata(WIDE)["inputs"]
        config = triton.get_model_config(WIDE)
        sigmoid = triton.get_model_config(REGISTERS)
    assert tensor["shape"] == [-1, 48, 128, 3]
    assert config["input"][0]["dims"] == [48, 128, 3]
    assert config["parameters"] == {"scores": {"string_value": "softmax"}}
    assert sigmoid["parameters"] == {"scores": {"string_value": "sigmoid"}}
    with over_grpc.InferenceServerClient(address(unusual_server)) as triton:
        assert [*triton.get_model_metadata(WIDE).inputs[0].shape] == [-1, 48, 128, 3]
        message = triton.get_model_config(REGISTERS).config
    assert [*message.input[0].dims] == [32, 32, 3]
    assert message.parameters["scores"].string_value == "sigmoid"


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("library", [over_http, over_grpc])
def test_inference_of_prepared_pixels(
    unusual_server: Server, unusual_repository: Path, photo: bytes, library: Any, name: str
) -> None:
    """Classes are ranked and told by their logits, as in Triton, whatever the scores are."""
    expected = trace(unusual_repository, photo, name)[0].numpy()
    pixels = seen(photo, name)[None]
    places = {over_http: unusual_server.url.removeprefix("http://"), over_grpc: ""}
    place = places[library] or address(unusual_server)
    tensor = library.InferInput("images", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    wanted = library.InferRequestedOutput("logits", class_count=9)
    with library.InferenceServerClient(place) as triton:
        logits = triton.infer(name, [tensor]).as_numpy("logits")[0]
        classes = triton.infer(name, [tensor], outputs=[wanted]).as_numpy("logits")[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    best = np.argsort(-expected)
    assert [text.decode() for text in classes] == [
        f"{logits[index]:f}:{index}:{labels_of(name)[index]}" for index in best
    ]


def test_inference_of_a_square_is_refused_by_a_wide_network(client: httpx.Client) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 128, 48, 3], "data": [0]}
    refused = client.post(f"/v2/models/{WIDE}/infer", json={"inputs": [tensor]})
    assert refused.status_code == 400
    assert "shape must be [B, 48, 128, 3]" in refused.json()["error"]


@pytest.mark.parametrize("name", UNUSUAL)
def test_answered_images_are_measured(client: httpx.Client, photo: bytes, name: str) -> None:
    classified(client, photo, name)

    def found() -> Any:
        return client.get("/monitor", params={"model": name}).raise_for_status().json()["models"][0]

    until(lambda: found()["samples"]["waiting"] == 0)
    (samples, measures) = (found()[key] for key in ("samples", "measures"))
    assert samples["measured"] > 0
    assert samples["failed"] == 0
    stages = {one["stage"] for one in measures if one["measure"] == "similarity.column"}
    mixes = bool(config_of(name).reatten_blocks)
    assert stages == ({"softmax", "reattention"} if mixes else {"softmax"})
    (confidence,) = (one["mean"][0] for one in measures if one["measure"] == "confidence")
    assert 0 < confidence <= 1
