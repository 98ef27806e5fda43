"""The Open Inference Protocol on a real server, with NVIDIA's own client."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http import aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from service.runtime import Runtime
from tests.conftest import DEEPVIT, VIT
from tests.service.http.v2_requests import (
    INFER,
    MODEL,
    error,
    image_request,
    softmax,
    statistics,
    tensor,
)
from tests.support.pictures import png
from tests.support.server import Server, running_server
from tests.support.service import accepted, client_of, held, running_service


def test_the_client_sees_the_server_and_its_models(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(DEEPVIT)
    assert triton.is_model_ready(DEEPVIT, "1")
    assert not triton.is_model_ready(DEEPVIT, "2")
    assert not triton.is_model_ready("resnet")
    server = triton.get_server_metadata()
    assert server["name"] == "deepvit-inference"
    assert "binary_tensor_data" in server["extensions"]
    for version in ("", "1"):
        metadata = triton.get_model_metadata(DEEPVIT, version)
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [
            {"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
        ]
        assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
        config = triton.get_model_config(DEEPVIT, version)
        assert config["max_batch_size"] == 32
        assert config["input"][0]["data_type"] == "TYPE_UINT8"
        outputs = {output["name"]: output["dims"] for output in config["output"]}
        assert outputs["logits"] == [10]
        assert outputs["softmax.map.00"] == [6, 65, 65]
    index = triton.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        (DEEPVIT, "1", "READY"),
        (VIT, "1", "READY"),
    ]


def test_a_client_of_any_classifier_finds_what_it_needs(
    triton: Any, client: httpx.Client, photo: bytes
) -> None:
    """NVIDIA's image_client.py: one input, one output that is a vector, and an order of axes."""
    metadata, config = triton.get_model_metadata(DEEPVIT), triton.get_model_config(DEEPVIT)
    (image,), (output,) = metadata["inputs"], metadata["outputs"]
    assert len(config["input"]) == 1
    assert config["input"][0]["format"] == "FORMAT_NHWC"
    batch, height, width, channels = image["shape"]
    assert (batch, channels) == (-1, 3)
    assert config["max_batch_size"] > 0
    assert output["datatype"] == "FP32"
    assert len(output["shape"]) == 2
    prepared = Image.open(io.BytesIO(photo)).convert("RGB").resize((width, height))
    given = InferInput(image["name"], [1, height, width, channels], image["datatype"])
    given.set_data_from_numpy(np.asarray(prepared)[None])
    best = [InferRequestedOutput(output["name"], class_count=1)]
    ((text,),) = triton.infer(DEEPVIT, [given], outputs=best).as_numpy(output["name"])
    classified = client.post("/classify", files={"image": png(prepared)}).json()
    assert text.decode().split(":")[2] == classified["results"][0]["predictions"][0]["label"]


@pytest.mark.parametrize("model", [DEEPVIT, VIT])
@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary", [True, False])
def test_logits_are_those_of_classify(
    triton: Any, client: httpx.Client, photo: bytes, pixels: Pixels, model: str, version: str,
    binary: bool,
) -> None:  # fmt: skip
    outputs = None if binary else [InferRequestedOutput("logits", binary_data=False)]
    found = triton.infer(
        model, [tensor(pixels, binary=binary)], version, outputs=outputs, request_id="a 1"
    )
    assert found.get_response()["id"] == "a 1"
    assert found.get_response()["model_name"] == model
    assert found.get_response()["model_version"] == "1"
    assert ("data" in found.get_output("logits")) != binary
    logits = found.as_numpy("logits")
    assert logits.shape == (2, 10)
    answer = client.post(f"/classify?model={model}&top_k=10", files={"image": photo}).json()
    predictions = answer["results"][0]["predictions"]
    assert predictions[0]["index"] == int(logits[0].argmax())
    for prediction in predictions:
        expected = softmax(logits[0])[prediction["index"]]
        assert prediction["probability"] == pytest.approx(expected, abs=1e-5)


def test_a_json_request_can_get_a_binary_answer(triton: Any, pixels: Pixels) -> None:
    """The client sends such requests without a length header."""
    found = triton.infer(DEEPVIT, [tensor(pixels, binary=False)])
    assert found.get_output("logits")["parameters"] == {"binary_data_size": 80}
    assert found.as_numpy("logits").shape == (2, 10)


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_both_directions_can_be_compressed(
    triton: Any, pixels: Pixels, sent: str | None, wanted: str | None
) -> None:
    outputs = [InferRequestedOutput("softmax.class_rows"), InferRequestedOutput("logits")]
    plain = triton.infer(DEEPVIT, [tensor(pixels)], outputs=outputs)
    found = triton.infer(
        DEEPVIT,
        [tensor(pixels)],
        outputs=outputs,
        request_compression_algorithm=sent,
        response_compression_algorithm=wanted,
    )
    for name in ("softmax.class_rows", "logits"):
        np.testing.assert_allclose(found.as_numpy(name), plain.as_numpy(name), atol=1e-5)


def test_answers_are_compressed_if_asked_for_and_large_enough(
    client: httpx.Client, pixels: Pixels
) -> None:
    large = image_request(pixels) | {"outputs": [{"name": "softmax.rollout"}]}
    for body, taken, encoding in [
        (large, "gzip", "gzip"),
        (large, "deflate, br", "deflate"),
        (large, "identity", None),
        (image_request(pixels), "gzip", None),
    ]:
        response = client.post(INFER, json=body, headers={"Accept-Encoding": taken})
        assert response.headers.get("content-encoding") == encoding
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.json()["outputs"]
    # NVIDIA's asyncio client cannot read compressed metadata.
    metadata = client.get(MODEL, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in metadata.headers


@pytest.mark.parametrize("binary", [True, False])
def test_classes_by_name(
    triton: Any, client: httpx.Client, photo: bytes, pixels: Pixels, binary: bool
) -> None:
    outputs = [InferRequestedOutput("logits", binary_data=binary, class_count=3)]
    found = triton.infer(DEEPVIT, [tensor(pixels)], outputs=outputs)
    texts = found.as_numpy("logits")
    assert texts.shape == (2, 3)
    first = [text.decode() if binary else text for text in texts[0]]
    predictions = client.post("/classify?top_k=3", files={"image": photo}).json()["results"][0][
        "predictions"
    ]
    assert [text.split(":")[1:] for text in first] == [
        [str(prediction["index"]), prediction["label"]] for prediction in predictions
    ]
    values = [float(text.split(":")[0]) for text in first]
    assert values == sorted(values, reverse=True)
    more = [InferRequestedOutput("logits", class_count=1000)]
    assert triton.infer(DEEPVIT, [tensor(pixels)], outputs=more).as_numpy("logits").shape == (2, 10)


def test_attention_is_that_of_attention_maps(
    triton: Any, client: httpx.Client, photo: bytes, pixels: Pixels
) -> None:
    image_id = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    names = ["reattention.map.03", "softmax.class_rows", "softmax.rollout", "logits"]
    found = triton.infer(
        DEEPVIT, [tensor(pixels)], outputs=[InferRequestedOutput(name) for name in names]
    )
    for name, query in [
        ("reattention.map.03", {"layer": "3", "query": "all", "head": "all"}),
        ("softmax.class_rows", {"stage": "softmax", "head": "all"}),
        ("softmax.rollout", {"stage": "softmax", "layer": "rollout", "query": "all"}),
    ]:
        response = client.get("/attention-maps", params={"id": image_id, "format": "npy"} | query)
        maps = np.load(io.BytesIO(response.content))
        value = found.as_numpy(name)
        assert len(value) == 2
        np.testing.assert_allclose(value[0].reshape(maps.shape), maps, atol=1e-6)
    logits = triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits")
    np.testing.assert_allclose(found.as_numpy("logits"), logits, atol=1e-4)


def test_the_largest_batch_is_taken_and_one_image_more_is_not(triton: Any, pixels: Pixels) -> None:
    full = np.repeat(pixels[:1], 32, axis=0)
    outputs = [InferRequestedOutput("logits"), InferRequestedOutput("feature_similarity")]
    found = triton.infer(DEEPVIT, [tensor(full)], outputs=outputs)
    assert found.as_numpy("feature_similarity").shape == (32, 16)
    with pytest.raises(InferenceServerException, match="with B from 1 to 32") as caught:
        triton.infer(DEEPVIT, [tensor(np.repeat(pixels[:1], 33, axis=0))])
    assert caught.value.status() == "400"


def test_the_asyncio_client_works_too(server: Server, pixels: Pixels) -> None:
    async def talk() -> None:
        address = server.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(address) as session:
            assert await session.is_server_live()
            assert await session.is_server_ready()
            assert await session.is_model_ready(DEEPVIT, "1")
            assert (await session.get_server_metadata())["extensions"]
            assert (await session.get_model_metadata(DEEPVIT))["name"] == DEEPVIT
            assert (await session.get_model_config(DEEPVIT))["max_batch_size"] == 32
            assert len(await session.get_model_repository_index()) == 2
            assert len((await session.get_inference_statistics())["model_stats"]) == 2
            outputs = [InferRequestedOutput("logits"), InferRequestedOutput("softmax.rollout")]
            for binary in (True, False):
                for encoding in (None, "gzip", "deflate"):
                    found = await session.infer(
                        DEEPVIT,
                        [tensor(pixels, binary=binary)],
                        outputs=outputs,
                        request_compression_algorithm=encoding,
                        response_compression_algorithm=encoding,
                    )
                    assert found.as_numpy("softmax.rollout").shape == (2, 65, 65)
            together = [session.infer(DEEPVIT, [tensor(pixels)]) for _ in range(8)]
            answers = await asyncio.gather(*together)
            for answer in answers:
                np.testing.assert_allclose(
                    answer.as_numpy("logits"), answers[0].as_numpy("logits"), atol=1e-4
                )
            with pytest.raises(InferenceServerException, match="No such model"):
                await session.infer("resnet", [tensor(pixels)])

    asyncio.run(talk())


def test_statistics_count_requests_images_and_batches(
    client: httpx.Client, triton: Any, photo: bytes, pixels: Pixels
) -> None:
    before = statistics(client)
    triton.infer(DEEPVIT, [tensor(pixels)])
    triton.infer(DEEPVIT, [tensor(pixels)], outputs=[InferRequestedOutput("softmax.rollout")])
    client.post("/classify", files={"image": photo})
    client.post(INFER, json={})  # refused before it reaches the model
    after = statistics(client, f"{MODEL}/versions/1")
    assert after["inference_count"] - before["inference_count"] == 5
    # The two images of a request run as one batch, or on two threads if that is faster.
    assert 3 <= after["execution_count"] - before["execution_count"] <= 5
    assert after["last_inference"] > before["last_inference"]
    for name, more in [("success", 3), ("queue", 3), ("compute_infer", 3), ("fail", 0)]:
        old, new = before["inference_stats"][name], after["inference_stats"][name]
        assert new["count"] - old["count"] == more, name
        assert (new["ns"] > old["ns"]) == (more > 0), name
    # Other tests' clients may have left while a batch ran, which counts in its size alone.
    sizes = batches(after) - batches(before)
    assert sizes.total() == after["execution_count"] - before["execution_count"]
    assert sum(size * count for size, count in sizes.items()) == 5
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [entry["name"] for entry in everything] == [DEEPVIT, VIT]
    assert triton.get_inference_statistics(DEEPVIT, "1")["model_stats"] == [statistics(client)]


def batches(found: dict[str, Any]) -> Counter[int]:
    """How many batches there were of each size."""
    return Counter(
        {entry["batch_size"]: entry["compute_infer"]["count"] for entry in found["batch_stats"]}
    )


def test_a_full_queue_says_when_to_try_again(repository: Path, pixels: Pixels) -> None:
    with running_server(repository, max_queue_images=1) as server, server.client() as client:
        assert client.get(f"{MODEL}/config").json()["max_batch_size"] == 1
        # The first such request opens a session, while the others come in.
        body = image_request(pixels) | {"outputs": [{"name": "softmax.rollout"}]}

        def post(_: int) -> httpx.Response:
            return client.post(INFER, json=body)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(post, range(64)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert error(answer).startswith("The server is busy: ")
            assert int(answer.headers["retry-after"]) >= 1
        assert statistics(client)["inference_stats"]["fail"]["count"] == len(refused)
        assert client.post(INFER, json=image_request(pixels)).status_code == 200


def test_a_full_queue_reads_no_body(repository: Path, pixels: Pixels) -> None:
    whole = json.dumps(image_request(pixels) | {"outputs": [{"name": "softmax.rollout"}]}).encode()
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield whole

    async def scenario(running: Runtime) -> None:
        model = running.pipeline.models.get(DEEPVIT)
        async with client_of(running) as client:
            with model.classifier.admit(2):
                refused = await client.post(INFER, content=body())
            assert refused.status_code == 429
            assert error(refused).startswith("The server is busy: 2 of 2 queue slots are taken")
            assert int(refused.headers["retry-after"]) >= 1
            assert not read
            with model.explainer.admit(2):  # the body says that it is for this queue
                assert (await client.post(INFER, content=body())).status_code == 429
                assert (await client.post(INFER, json=image_request(pixels))).status_code == 200
            assert read
            assert (await client.post(INFER, content=body())).status_code == 200
        assert model.classifier._reserved == model.explainer._reserved == 0
        assert model.statistics.snapshot().failure.count == 2

    with running_service(repository, max_queue_images=2) as running:
        asyncio.run(scenario(running))


def test_a_draining_server_answers_admitted_requests_and_refuses_new_ones(
    repository: Path, pixels: Pixels
) -> None:
    async def scenario(running: Runtime) -> None:
        async with client_of(running) as client, asyncio.timeout(60):
            with held(running) as model:
                under_way = asyncio.create_task(client.post(INFER, json=image_request(pixels)))
                await accepted(model, 1)
                assert (await client.get("/v2/health/ready")).status_code == 200
                running.draining = True
                for method, path in [
                    ("GET", "/v2/health/ready"),
                    ("GET", f"{MODEL}/ready"),
                    ("POST", INFER),
                    ("POST", f"/v2/repository/models/{DEEPVIT}/unload"),
                ]:
                    refused = await client.request(method, path)
                    assert (refused.status_code, bool(error(refused))) == (503, True), path
                assert (await client.get("/v2/health/live")).status_code == 200
            answer = await under_way
        assert answer.status_code == 200
        assert len(answer.json()["outputs"][0]["data"]) == 10

    with running_service(repository) as running:
        asyncio.run(scenario(running))


def test_late_answers_are_not_computed(client: httpx.Client, pixels: Pixels) -> None:
    late = client.post(
        INFER,
        json=image_request(pixels, shape=[32, 32, 32, 3], data=[0] * 32 * 3072),
        headers={"X-Request-Timeout-Ms": "1"},
    )
    assert late.status_code == 504
    assert error(late).startswith("The answer would have come too late")
    wrong = client.post(INFER, json=image_request(pixels), headers={"X-Request-Timeout-Ms": "soon"})
    assert wrong.status_code == 422
    assert error(wrong)
    timed = client.post(INFER, json=image_request(pixels))
    assert timed.headers["server-timing"].startswith("queue;dur=")


def test_v2_has_request_ids_and_documentation_too(client: httpx.Client) -> None:
    response = client.get("/v2/models/resnet", headers={"X-Request-Id": "abc"})
    assert response.headers["x-request-id"] == "abc"
    paths = client.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{model}/versions/{version}/infer"]["post"]
    named = {parameter["name"] for parameter in infer["parameters"]}
    assert named == {"model", "version", "x-request-timeout-ms"}
    statuses = {"400", "401", "404", "413", "415", "422", "429", "500", "503", "504"}
    assert statuses <= infer["responses"].keys()
    found = {path: methods for path, methods in paths.items() if path.startswith("/v2")}
    for methods in found.values():
        for operation in methods.values():
            assert operation["tags"] == ["open inference protocol"]
            for status, answer in operation["responses"].items():
                assert status == "200" or list(answer["content"]) == ["application/json"]
