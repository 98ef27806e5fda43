"""The Open Inference Protocol over gRPC: NVIDIA's client gets what it gets over REST."""

import asyncio
import io
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient import http as over_http
from tritonclient.grpc import InferRequestedOutput
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from tests.conftest import BUNDLED, DEEPVIT, VIT
from tests.docs.markdown import ADDRESS, blocks
from tests.service.http.v2_requests import softmax
from tests.service.oip.grpc.calls import (
    SERVICE,
    address,
    image_request,
    stub_of,
    tensor,
    typed,
)
from tests.support.server import ROOT, Server


def test_metadata_is_the_same_as_over_rest(triton: Any, triton_http: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(DEEPVIT)
    assert triton.is_model_ready(DEEPVIT, "1")
    for model, version in ((DEEPVIT, "2"), (DEEPVIT, "latest"), ("resnet", "")):
        assert not triton.is_model_ready(model, version)
        assert not triton_http.is_model_ready(model, version)
    ours, theirs = triton.get_server_metadata(as_json=True), triton_http.get_server_metadata()
    assert ours["name"] == theirs["name"]
    assert ours["version"] == theirs["version"]
    assert set(theirs["extensions"]) - set(ours["extensions"]) == {"binary_tensor_data"}
    for version in ("", "1"):
        metadata = triton.get_model_metadata(DEEPVIT, version)
        expected = triton_http.get_model_metadata(DEEPVIT, version)
        for field in ("inputs", "outputs"):
            assert [
                {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
                for one in getattr(metadata, field)
            ] == expected[field]
        assert list(metadata.versions) == expected["versions"]
        config = triton.get_model_config(DEEPVIT, version).config
        expected = triton_http.get_model_config(DEEPVIT, version)
        assert config.max_batch_size == expected["max_batch_size"]
        assert [(one.name, list(one.dims)) for one in config.output] == [
            (one["name"], one["dims"]) for one in expected["output"]
        ]
    index = triton.get_model_repository_index().models
    assert [(one.name, one.version, one.state) for one in index] == [
        (DEEPVIT, "1", "READY"),
        (VIT, "1", "READY"),
    ]


@pytest.mark.parametrize("model", [DEEPVIT, VIT])
@pytest.mark.parametrize("version", ["", "1"])
def test_outputs_are_the_same_as_over_rest_bit_for_bit(
    triton: Any, triton_http: Any, rest: httpx.Client, photo: bytes, pixels: Pixels, model: str,
    version: str,
) -> None:  # fmt: skip
    for names in (["logits"], ["logits", "softmax.class_rows", "softmax.rollout"]):
        found = triton.infer(
            model,
            [tensor(pixels)],
            version,
            outputs=[InferRequestedOutput(name) for name in names],
            request_id="a 1",
        )
        assert found.get_response().id == "a 1"
        assert found.get_response().model_name == model
        assert found.get_response().model_version == "1"
        expected = triton_http.infer(
            model,
            [tensor(pixels, over_http.InferInput)],
            version,
            outputs=[over_http.InferRequestedOutput(name) for name in names],
        )
        for name in names:
            np.testing.assert_array_equal(found.as_numpy(name), expected.as_numpy(name))
    answer = rest.post(f"/classify?model={model}&top_k=10", files={"image": photo}).json()
    predictions = {one["index"]: one["probability"] for one in answer["results"][0]["predictions"]}
    logits = triton.infer(model, [tensor(pixels)], version).as_numpy("logits")
    probabilities = [predictions[index] for index in range(10)]
    np.testing.assert_allclose(softmax(logits[0]), probabilities, atol=1e-6)


def test_maps_are_the_same_as_from_attention_maps(
    triton: Any, rest: httpx.Client, photo: bytes, pixels: Pixels
) -> None:
    image_id = rest.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    query = {"id": image_id, "layer": "3", "query": "all", "head": "all", "format": "npy"}
    maps = np.load(io.BytesIO(rest.get("/attention-maps", params=query).content))
    outputs = [InferRequestedOutput("reattention.map.03")]
    found = triton.infer(DEEPVIT, [tensor(pixels)], outputs=outputs).as_numpy("reattention.map.03")
    np.testing.assert_array_equal(found.reshape(maps.shape), maps)


def test_typed_contents_are_the_same_as_raw_ones(server: Server, pixels: Pixels) -> None:
    with stub_of(address(server)) as stub:
        raw = stub.ModelInfer(image_request(pixels))
        same = stub.ModelInfer(image_request(pixels, **typed(pixels)))
    assert same.raw_output_contents == raw.raw_output_contents
    assert len(raw.raw_output_contents[0]) == 40


def test_classes_by_name(triton: Any, rest: httpx.Client, photo: bytes, pixels: Pixels) -> None:
    two = np.concatenate([pixels, pixels])
    outputs = [InferRequestedOutput("logits", class_count=3)]
    texts = triton.infer(DEEPVIT, [tensor(two)], outputs=outputs).as_numpy("logits")
    assert texts.shape == (2, 3)
    answer = rest.post("/classify?top_k=3", files={"image": photo}).json()
    assert [text.decode().split(":")[1:] for text in texts[0]] == [
        [str(one["index"]), one["label"]] for one in answer["results"][0]["predictions"]
    ]


def test_the_http_example_works_with_another_import_and_address(
    server: Server, tmp_path: Path
) -> None:
    (example,) = [block for block in blocks("python") if "tritonclient" in block.code]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    code = example.code.replace(BUNDLED[0], DEEPVIT).replace("(112, 112)", "(32, 32)")

    def printed(protocol: str, where: str) -> str:
        changed = code.replace("tritonclient.http", f"tritonclient.{protocol}")
        command = [sys.executable, "-c", changed.replace(ADDRESS, where)]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return found.stdout

    over_grpc = printed("grpc", address(server))
    assert "(1, 16, 6, 65)" in over_grpc
    assert over_grpc == printed("http", server.url)


def test_the_asyncio_client_works_too(server: Server, triton_http: Any, pixels: Pixels) -> None:
    expected = triton_http.infer(DEEPVIT, [tensor(pixels, over_http.InferInput)])

    async def talk() -> None:
        async with triton_aio.InferenceServerClient(address(server)) as session:
            assert await session.is_server_live()
            assert await session.is_server_ready()
            assert await session.is_model_ready(DEEPVIT, "1")
            assert (await session.get_model_metadata(DEEPVIT)).name == DEEPVIT
            assert len((await session.get_inference_statistics()).model_stats) == 2
            for encoding in (None, "gzip", "deflate"):
                found = await session.infer(
                    DEEPVIT, [tensor(pixels)], compression_algorithm=encoding
                )
                np.testing.assert_array_equal(found.as_numpy("logits"), expected.as_numpy("logits"))
            together = [session.infer(DEEPVIT, [tensor(pixels)]) for _ in range(8)]
            for answer in await asyncio.gather(*together):
                np.testing.assert_allclose(
                    answer.as_numpy("logits"), expected.as_numpy("logits"), atol=1e-4
                )

    asyncio.run(talk())


def test_a_stream_responds_in_order_and_survives_a_bad_request(triton: Any, pixels: Pixels) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    triton.start_stream(lambda result, error: answers.put((result, error)))
    plain = triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits")
    for model in (DEEPVIT, "resnet", DEEPVIT):
        triton.async_stream_infer(model, [tensor(pixels)], request_id=f"to {model}")
    for _ in range(2):
        result, error = answers.get(timeout=60)
        if error is None:
            assert result.get_response().id == f"to {DEEPVIT}"
            np.testing.assert_array_equal(result.as_numpy("logits"), plain)
        else:
            break
    assert "No such model: no model resnet" in error.message()
    result, error = answers.get(timeout=60)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("logits"), plain)
    triton.stop_stream()


def test_statistics_and_metrics_count_calls(
    triton: Any, rest: httpx.Client, pixels: Pixels
) -> None:
    def count() -> tuple[float, float, int]:
        text = rest.get("/metrics").text
        numbers = [
            sum(
                float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith(name) and all(part in line for part in parts)
            )
            for name, parts in [
                ("deepvit_requests_total", (f'route="/{SERVICE}/ModelInfer"', 'status="OK"')),
                ("deepvit_images_total", (DEEPVIT, 'queue="classify"', 'fate="answered"')),
            ]
        ]
        (found,) = triton.get_inference_statistics(DEEPVIT, "1").model_stats
        return numbers[0], numbers[1], found.inference_stats.success.count

    before = count()
    triton.infer(DEEPVIT, [tensor(np.concatenate([pixels, pixels]))])
    assert np.subtract(count(), before).tolist() == [1, 2, 1]
    with pytest.raises(InferenceServerException):
        triton.infer("resnet", [tensor(pixels)])
    lines = rest.get("/metrics").text
    assert f'deepvit_requests_total{{route="/{SERVICE}/ModelInfer",status="NOT_FOUND"}}' in lines
