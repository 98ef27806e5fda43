"""The Open Inference Protocol on a real server: NVIDIA's client as it is, and worse clients."""

import asyncio
import gzip
import io
import json
import shutil
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.http import aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.arrays import Float32Array, Pixels
from models.preprocess import Preprocessing, preprocess
from service.runtime import Runtime
from tests.conftest import DEEPVIT, VIT
from tests.support.server import Server, running_server
from tests.support.service import client_of, running_service
from tests.support.versions import add_version, copied

MODEL = f"/v2/models/{DEEPVIT}"
INFER = f"{MODEL}/infer"
LENGTH = "Inference-Header-Content-Length"
RULE = Preprocessing(
    size=32, crop_pct=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[Any]:
    with InferenceServerClient(server.url.removeprefix("http://")) as session:
        yield session


@pytest.fixture(scope="module")
def pixels(photo: bytes) -> Pixels:
    """What the models see of the photograph, and of it upside down. [2, 32, 32, 3]"""
    seen = preprocess(Image.open(io.BytesIO(photo)), RULE)
    return np.stack([seen, seen[::-1]])


def tensor(pixels: Pixels, *, binary: bool = True) -> Any:
    found = InferInput("images", list(pixels.shape), "UINT8")
    found.set_data_from_numpy(pixels, binary_data=binary)
    return found


def image_request(pixels: Pixels, **changes: Any) -> dict[str, Any]:
    """One image as JSON, with other fields of the input."""
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
    return {"inputs": [image | {"data": pixels[0].ravel().tolist()} | changes]}


def softmax(logits: Float32Array) -> Float32Array:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def statistics(client: httpx.Client, path: str = MODEL) -> dict[str, Any]:
    (found,) = client.get(f"{path}/stats").json()["model_stats"]
    return dict(found)


def test_the_client_learns_what_there_is(triton: Any) -> None:
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
        outputs = {output["name"]: output["shape"] for output in metadata["outputs"]}
        assert outputs["logits"] == [-1, 10]
        assert outputs["softmax.map.00"] == [-1, 6, 65, 65]
        config = triton.get_model_config(DEEPVIT, version)
        assert config["max_batch_size"] == 32
        assert config["input"][0]["data_type"] == "TYPE_UINT8"
        assert {output["name"]: [-1, *output["dims"]] for output in config["output"]} == outputs
    index = triton.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        (DEEPVIT, "1", "READY"),
        (VIT, "1", "READY"),
    ]


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


def test_json_requests_get_the_binary_answers_they_ask_for(triton: Any, pixels: Pixels) -> None:
    """Without a length header, as the client sends them."""
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


def test_answers_are_compressed_only_where_it_is_asked_for_and_worth_it(
    client: httpx.Client, pixels: Pixels
) -> None:
    large = image_request(pixels) | {"outputs": [{"name": "softmax.rollout"}]}
    for body, accepted, encoding in [
        (large, "gzip", "gzip"),
        (large, "deflate, br", "deflate"),
        (large, "identity", None),
        (image_request(pixels), "gzip", None),
    ]:
        response = client.post(INFER, json=body, headers={"Accept-Encoding": accepted})
        assert response.headers.get("content-encoding") == encoding
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.json()["outputs"]
    # NVIDIA's asyncio client could not read these compressed.
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


def test_the_largest_batch_and_one_more(triton: Any, pixels: Pixels) -> None:
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
    client.post(INFER, json={})  # refused before it comes to the model
    after = statistics(client, f"{MODEL}/versions/1")
    assert after["inference_count"] - before["inference_count"] == 5
    # Two images of a request run as one batch, or beside each other where that is faster.
    assert 3 <= after["execution_count"] - before["execution_count"] <= 5
    assert after["last_inference"] > before["last_inference"]
    for name, more in [("success", 3), ("queue", 3), ("compute_infer", 3), ("fail", 0)]:
        old, new = before["inference_stats"][name], after["inference_stats"][name]
        assert new["count"] - old["count"] == more, name
        assert (new["ns"] > old["ns"]) == (more > 0), name
    sizes = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in after["batch_stats"]}
    assert sum(sizes.values()) == after["execution_count"]
    assert sum(size * count for size, count in sizes.items()) == after["inference_count"]
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [entry["name"] for entry in everything] == [DEEPVIT, VIT]
    assert triton.get_inference_statistics(DEEPVIT, "1")["model_stats"] == [statistics(client)]


def error(response: httpx.Response) -> str:
    """An error in the protocol's own form."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v2/nothing", 404, "Not Found"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("GET", INFER, 405, "Method Not Allowed"),
        ("POST", "/v2", 405, "Method Not Allowed"),
        ("GET", "/v2/models/resnet", 404, "No such model: no model resnet; served: "),
        ("GET", "/v2/models/%2e%2e%2fetc", 404, ""),
        ("GET", "/v2/models/resnet/ready", 404, "No such model"),
        ("GET", "/v2/models/resnet/config", 404, "No such model"),
        ("GET", "/v2/models/resnet/stats", 404, "No such model"),
        ("POST", "/v2/models/resnet/infer", 404, "No such model"),
        ("GET", f"{MODEL}/versions/2", 404, f"no version 2 of {DEEPVIT}; served: 1"),
        ("GET", f"{MODEL}/versions/01", 404, "no version '01' of"),
        ("GET", f"{MODEL}/versions/-1/ready", 404, "no version '-1'"),
        ("GET", f"{MODEL}/versions/{'9' * 99}/config", 404, "no version '999"),
        ("GET", f"{MODEL}/versions/latest/stats", 404, "no version 'latest'"),
        ("POST", f"{MODEL}/versions/2/infer", 404, "no version 2"),
    ],
)
def test_errors_have_the_form_of_the_protocol(
    client: httpx.Client, method: str, path: str, status: int, reason: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert reason in error(response)
    assert client.get("/v2x").headers["content-type"] == "application/problem+json"


BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "deep JSON": b"[" * 50_000,
    "NaN": b'{"inputs": [NaN]}',
    "an image": b"\xff\xd8\xff\xe0",
    "no fields": b"{}",
    "a negative length": b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[-1,32,32,3]}]}',
    "a shape that overflows": b'{"inputs":[{"name":"images","datatype":"UINT8",'
    b'"shape":[4611686018427387904,32,32,3],"parameters":{"binary_data_size":0}}]}',
    "a shape that overflows more": b'{"inputs":[{"name":"images","datatype":"UINT8",'
    b'"shape":[1,18446744073709551615,18446744073709551615,3],"data":[]}]}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_and_leave_the_server_well(
    client: httpx.Client, pixels: Pixels, name: str
) -> None:
    response = client.post(INFER, content=BAD_BODIES[name])
    assert response.status_code == 400
    assert error(response).startswith("The inference request is invalid: ")
    assert client.post(INFER, json=image_request(pixels)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "image"},
        {"datatype": "FP32"},
        {"shape": [1, 32, 32]},
        {"shape": [1, 3, 32, 32]},
        {"shape": [0, 32, 32, 3]},
        {"data": [1, 2, 3]},
        {"data": [0.5] * 3072},
        {"data": [True] * 3072},
        {"data": [256] * 3072},
        {"data": [[1] * 3072]},
        {"parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 3072}},
        {"parameters": {"binary_data_size": 3072}},
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(
    client: httpx.Client, pixels: Pixels, changes: dict[str, Any]
) -> None:
    response = client.post(INFER, json=image_request(pixels, **changes))
    assert response.status_code == 400, response.text
    assert error(response)
    assert client.post(INFER, json=image_request(pixels)).status_code == 200


@pytest.mark.parametrize("length", ["-1", "0", "1", "abc", "99999999", "9" * 40, "", "1.5"])
def test_header_lengths_that_do_not_fit(client: httpx.Client, pixels: Pixels, length: str) -> None:
    body, _ = InferenceServerClient.generate_request_body([tensor(pixels)])
    response = client.post(INFER, content=body, headers={LENGTH: length})
    assert response.status_code == 400
    assert error(response)


def test_compressed_requests_are_bounded_after_decompression(
    client: httpx.Client, pixels: Pixels
) -> None:
    bomb = bytes(40 * 2**20)
    good = json.dumps(image_request(pixels)).encode()
    for body, encoding, status, reason in [
        (gzip.compress(bomb), "gzip", 413, "decompressed body has more than 33,554,432 bytes"),
        (zlib.compress(bomb), "deflate", 413, "decompressed body has more than 33,554,432 bytes"),
        (good, "gzip", 400, "not gzip"),
        (gzip.compress(good)[:-20], "gzip", 400, "not one whole gzip stream"),
        (good, "br", 415, "send gzip, deflate or identity"),
        (good, "gzip, deflate", 415, "not 'gzip, deflate'"),
    ]:
        response = client.post(INFER, content=body, headers={"Content-Encoding": encoding})
        assert response.status_code == status
        assert reason in error(response)
        whole = client.post(
            INFER, content=gzip.compress(good), headers={"Content-Encoding": "gzip"}
        )
        assert whole.status_code == 200


def test_bodies_and_answers_are_bounded(repository: Path, pixels: Pixels) -> None:
    def endless() -> Iterator[bytes]:
        yield from [b" " * 1000] * 1000

    with (
        running_server(repository, max_upload_bytes=50_000, max_answer_bytes=100_000) as server,
        server.client() as client,
    ):
        for body in (b" " * 1_000_000, endless()):
            response = client.post(INFER, content=body)
            assert response.status_code == 413
            assert "more than 50,000 bytes" in error(response)
        large = image_request(pixels) | {"outputs": [{"name": "softmax.map.00"}]}
        response = client.post(INFER, json=large)
        assert response.status_code == 422
        assert "about 354,900 bytes, and at most 100,000" in error(response)
        assert client.post(INFER, json=image_request(pixels)).status_code == 200


def test_a_full_queue_says_when_to_come_again(repository: Path, pixels: Pixels) -> None:
    with running_server(repository, max_queue_images=1) as server, server.client() as client:
        assert client.get(f"{MODEL}/config").json()["max_batch_size"] == 1
        # The first such request opens a session meanwhile.
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
            assert error(refused).startswith("The server is busy: 2 of 2 places are taken")
            assert int(refused.headers["retry-after"]) >= 1
            assert not read
            with model.explainer.admit(2):  # which queue it is for, the body says
                assert (await client.post(INFER, content=body())).status_code == 429
                assert (await client.post(INFER, json=image_request(pixels))).status_code == 200
            assert read
            assert (await client.post(INFER, content=body())).status_code == 200
        assert model.classifier._reserved == model.explainer._reserved == 0
        assert model.statistics.snapshot().failure.count == 2

    with running_service(repository, max_queue_images=2) as running:
        asyncio.run(scenario(running))


def test_a_draining_server_answers_what_it_has_and_takes_no_more(
    repository: Path, pixels: Pixels
) -> None:
    async def scenario(running: Runtime) -> None:
        model = running.pipeline.models.get(DEEPVIT)
        released = threading.Event()
        run = model.classifier._run

        def held(images: Any, key: Any) -> Any:
            assert released.wait(30)
            return run(images, key)

        model.classifier._run = held
        async with client_of(running) as client, asyncio.timeout(60):
            under_way = asyncio.create_task(client.post(INFER, json=image_request(pixels)))
            while not model.classifier.books.accepted:
                await asyncio.sleep(0)
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
            released.set()
            answer = await under_way
        assert answer.status_code == 200
        assert len(answer.json()["outputs"][0]["data"]) == 10

    with running_service(repository) as running:
        asyncio.run(scenario(running))


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
        assert triton.get_model_repository_index() == [
            {"name": DEEPVIT, "version": version, "state": "UNAVAILABLE", "reason": "unloaded"}
            for version in ("1", "2")
        ]
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        with pytest.raises(InferenceServerException, match="No such model"):
            triton.infer(DEEPVIT, [tensor(pixels)])
        triton.load_model(DEEPVIT)
        assert triton.is_model_ready(DEEPVIT, "2")
        shutil.copytree(repository / VIT, tmp_path / VIT)  # nobody has asked for it yet
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [(entry["version"], entry["state"]) for entry in ready] == [
            ("1", "READY"),
            ("2", "READY"),
        ]
        assert triton.get_model_repository_index() == [
            *ready,
            {"name": VIT, "version": "", "state": "", "reason": ""},
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
        assert [(entry["version"], entry["state"]) for entry in index] == [
            ("1", "READY"),
            ("", "UNAVAILABLE"),
        ]
        assert index[1]["name"] == DEEPVIT
        assert "out of bounds" in index[1]["reason"]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert ready == index[:1]
        assert client.post(INFER, json=image_request(pixels)).json()["model_version"] == "1"


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


def test_request_ids_and_documentation_reach_here_too(client: httpx.Client) -> None:
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


# A client that gets something wrong somewhere, over and over.

ODD: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([[], {}, [[]], [-1, 32, 32, 3], "UINT8", "images", "logits", 3072, 2**63])
)


@st.composite
def wrong_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A valid binary request after some accidents."""
    message: dict[str, Any] = {
        "id": "1",
        "parameters": {"binary_data_output": True},
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": [1, 32, 32, 3],
                "parameters": {"binary_data_size": 3072},
            }
        ],
        "outputs": [
            {"name": "logits", "parameters": {"binary_data": True, "classification": 2}},
            {"name": "softmax.rollout"},
        ],
    }
    for _ in range(draw(st.integers(0, 3))):
        _damage(draw, message)
    text = json.dumps(message).encode()
    tail = bytearray(range(256)) * 12
    for _ in range(draw(st.integers(0, 3))):
        tail[draw(st.integers(0, len(tail) - 1))] ^= draw(st.integers(1, 255))
    body = text + tail
    length = str(len(text))
    accident = draw(st.sampled_from(["none", "length", "flip", "cut", "more", "encoding"]))
    headers = {LENGTH: length}
    if accident == "length":
        number = st.integers(-5, len(body) + 5).map(str)
        headers[LENGTH] = draw(number | st.sampled_from(["", "x", "1e3", "9" * 30]))
    elif accident == "flip":
        flipped = bytearray(body)
        flipped[draw(st.integers(0, len(text) - 1))] ^= draw(st.integers(1, 255))
        body = bytes(flipped)
    elif accident == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif accident == "more":
        body += draw(st.binary(max_size=20))
    elif accident == "encoding":
        headers["Content-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "br", "identity"]))
        body = gzip.compress(body, mtime=0)[: draw(st.integers(0, 5000))]
    return bytes(body), headers


def _damage(draw: st.DrawFn, message: dict[str, Any]) -> None:
    """Replace, remove, add or repeat something somewhere in the JSON."""
    place: Any = message
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    action = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
    if action == "replace":
        place[key] = draw(ODD)
    elif action == "remove":
        del place[key]
    elif isinstance(place, list):
        place.append(draw(ODD) if action == "add" else place[key])
    else:
        place[draw(st.text(max_size=8))] = draw(ODD)


@given(wrong_requests())
@settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_wrong_request_is_a_fault_of_the_server(
    client: httpx.Client, wrong: tuple[bytes, dict[str, str]]
) -> None:
    body, headers = wrong
    response = client.post(INFER, content=body, headers=headers)
    assert response.status_code in (200, 400, 413, 415), response.text
    if response.status_code == 200:
        length = response.headers.get(LENGTH.lower())
        found = InferResult.from_response_body(response.content, header_length=length)
        assert found.get_response()["outputs"]
    else:
        assert error(response)


def test_after_all_that_the_server_is_well(server: Server, triton: Any, pixels: Pixels) -> None:
    """Last in this file."""
    assert triton.is_server_ready()
    assert triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits").shape == (2, 10)
    assert "Traceback" not in "".join(server.log)
