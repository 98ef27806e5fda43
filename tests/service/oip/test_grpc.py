"""The Open Inference Protocol over gRPC: NVIDIA's client, misbehaving clients, failures."""

import asyncio
import io
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient import http as over_http
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.grpc import aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from models.preprocess import preprocess
from service.errors import HeadersTooLarge, RequestTimeout, ServiceError, UriTooLong
from service.oip.grpc.interceptor import STATUS_CODES
from service.oip.grpc.server import GrpcServer
from service.runtime import Runtime
from tests.conftest import DEEPVIT, VIT
from tests.docs.markdown import ADDRESS, blocks
from tests.service.http.v2_requests import RULE, softmax
from tests.support.server import ROOT, Server, running_server
from tests.support.service import running_service
from tests.support.versions import copied

_ADDRESS = re.compile(r"gRPC on ([\d.:]+)")
SERVICE = "inference.GRPCInferenceService"


def address(server: Server) -> str:
    match = _ADDRESS.search("".join(server.log))
    assert match
    return match[1]


@contextmanager
def stub_of(address: str, **options: Any) -> Iterator[Any]:
    """For requests that NVIDIA's client would not send."""
    with grpc.insecure_channel(address, **options) as channel:
        yield GRPCInferenceServiceStub(channel)


@asynccontextmanager
async def served(running: Runtime, **options: Any) -> AsyncIterator[tuple[Any, GrpcServer]]:
    """A client and a server in this process."""
    server = GrpcServer(running, host="127.0.0.1", port=0, **options)
    await server.start()
    async with triton_aio.InferenceServerClient(server.address) as client:
        yield client, server
    await server.stop(0)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with running_server(repository, grpc_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def rest(server: Server) -> Iterator[httpx.Client]:
    with server.client() as session:
        yield session


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[Any]:
    with InferenceServerClient(address(server)) as session:
        yield session


@pytest.fixture(scope="module")
def triton_http(server: Server) -> Iterator[Any]:
    with over_http.InferenceServerClient(server.url.removeprefix("http://")) as session:
        yield session


@pytest.fixture(scope="module")
def pixels(photo: bytes) -> Pixels:
    """The model input for the photograph. [1, 32, 32, 3]"""
    return preprocess(Image.open(io.BytesIO(photo)), RULE)[None]


def tensor(pixels: Pixels, input_class: Any = InferInput) -> Any:
    """An input of the client for gRPC or for HTTP."""
    image = input_class("images", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels)
    return image


def image_request(pixels: Pixels, **changes: Any) -> Any:
    """A request with one image, as a message."""
    image = {"name": "images", "datatype": "UINT8", "shape": pixels.shape}
    fields: dict[str, Any] = {
        "model_name": DEEPVIT,
        "inputs": [image],
        "raw_input_contents": [pixels.tobytes()],
    }
    return pb.ModelInferRequest(**(fields | changes))


def typed(pixels: Pixels, values: Any = None) -> dict[str, Any]:
    image = {
        "name": "images",
        "datatype": "UINT8",
        "shape": pixels.shape,
        "contents": {"uint_contents": pixels.ravel().tolist() if values is None else values},
    }
    return {"inputs": [image], "raw_input_contents": []}


def test_metadata_is_the_same_as_over_rest(triton: Any, triton_http: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(DEEPVIT)
    assert triton.is_model_ready(DEEPVIT, "1")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        triton.is_model_ready(DEEPVIT, "2")
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
    changed = example.code.replace("tritonclient.http", "tritonclient.grpc")
    command = [sys.executable, "-c", changed.replace(ADDRESS, address(server))]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == example.shown


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


def parameter(**choice: Any) -> dict[str, Any]:
    return {"parameters": {"shared_memory_region": choice}}


IMAGE = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
BAD: dict[str, tuple[dict[str, Any], StatusCode, str]] = {
    "another model": ({"model_name": "resnet"}, StatusCode.NOT_FOUND, "No such model"),
    "another version": ({"model_version": "2"}, StatusCode.NOT_FOUND, "no version 2"),
    "no version": ({"model_version": "latest"}, StatusCode.NOT_FOUND, "versions are numbers"),
    "no input": ({"inputs": []}, StatusCode.INVALID_ARGUMENT, "takes one input"),
    "the input twice": ({"inputs": [IMAGE] * 9}, StatusCode.INVALID_ARGUMENT, "appears twice"),
    "another input": (
        {"inputs": [IMAGE | {"name": "x"}]}, StatusCode.INVALID_ARGUMENT, "takes one input",
    ),
    "another datatype": (
        {"inputs": [IMAGE | {"datatype": "FP32"}]}, StatusCode.INVALID_ARGUMENT, "not 'FP32'",
    ),
    "a negative length": (
        {"inputs": [IMAGE | {"shape": [-1, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "must be",
    ),
    "a shape that overflows": (
        {"inputs": [IMAGE | {"shape": [2**62, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "shape",
    ),
    "many dimensions": (
        {"inputs": [IMAGE | {"shape": [1] * 10_000}]}, StatusCode.INVALID_ARGUMENT, "must be",
    ),
    "too many images": (
        {"inputs": [IMAGE | {"shape": [33, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "1 to 32",
    ),
    "nothing": ({"raw_input_contents": []}, StatusCode.INVALID_ARGUMENT, "0 uint_contents"),
    "a byte too few": (
        {"raw_input_contents": [bytes(3071)]}, StatusCode.INVALID_ARGUMENT, "3071 bytes",
    ),
    "raw contents twice": (
        {"raw_input_contents": [bytes(3072)] * 2}, StatusCode.INVALID_ARGUMENT, "one entry of raw",
    ),
    "contents of both kinds": (
        {"inputs": [IMAGE | {"contents": {"uint_contents": [1]}}]},
        StatusCode.INVALID_ARGUMENT,
        "either contents or one entry",
    ),
    "contents of another type": (
        {"inputs": [IMAGE | {"contents": {"fp32_contents": [1.0] * 3072}}],
         "raw_input_contents": []},
        StatusCode.INVALID_ARGUMENT,
        "0 uint_contents",
    ),
    "an unknown output": (
        {"outputs": [{"name": "x"}]}, StatusCode.INVALID_ARGUMENT, "no output 'x'",
    ),
    "an output over and over": (
        {"outputs": [{"name": "logits"}] * 10_000}, StatusCode.INVALID_ARGUMENT, "appears twice",
    ),
    "no class": (
        {"outputs": [{"name": "logits", "parameters": {"classification": {"int64_param": 0}}}]},
        StatusCode.INVALID_ARGUMENT,
        "a number of classes",
    ),
    "classes as text": (
        {"outputs": [{"name": "logits", "parameters": {"classification": {"string_param": "2"}}}]},
        StatusCode.INVALID_ARGUMENT,
        "a whole number",
    ),
    "a sequence": (
        {"parameters": {"sequence_id": {"int64_param": 1}}},
        StatusCode.INVALID_ARGUMENT,
        "is stateless",
    ),
    "an input in shared memory": (
        {"inputs": [IMAGE | parameter(string_param="a")]},
        StatusCode.INVALID_ARGUMENT,
        "shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_have_their_codes(server: Server, pixels: Pixels, name: str) -> None:
    changes, code, reason = BAD[name]
    with stub_of(address(server)) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(image_request(pixels, **changes))
        assert caught.value.code() == code
        assert reason in caught.value.details()
        assert stub.ModelInfer(image_request(pixels)).model_name == DEEPVIT


def test_malformed_messages_are_client_errors(server: Server) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        for name in ("ModelInfer", "ServerLive"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{SERVICE}/{name}")(b"\xff\xff\xff")
            assert caught.value.code() == StatusCode.INVALID_ARGUMENT
        answers = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b"\xff\xff\xff"]))
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("values", [[256] * 3072, [2**32 - 1] * 3072, [1] * 3071, []])
def test_typed_contents_that_do_not_fit(server: Server, pixels: Pixels, values: list[int]) -> None:
    with stub_of(address(server)) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(image_request(pixels, **typed(pixels, values)))
    assert caught.value.code() == StatusCode.INVALID_ARGUMENT


def test_unsupported_methods_are_unimplemented(server: Server) -> None:
    with stub_of(address(server)) as stub:
        for call, request in [
            (stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
            (stub.CudaSharedMemoryUnregister, pb.CudaSharedMemoryUnregisterRequest()),
            (stub.TraceSetting, pb.TraceSettingRequest()),
            (stub.LogSettings, pb.LogSettingsRequest()),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                call(request)
            assert caught.value.code() == StatusCode.UNIMPLEMENTED


WORDS = st.sampled_from(["", "images", "logits", "UINT8", "FP32", DEEPVIT, "1", "0"]) | st.text(
    max_size=5
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["classification", "binary_data", "binary_data_output", "sequence_id", "x"]),
    st.sampled_from(
        [{}, {"int64_param": 2}, {"bool_param": True}, {"string_param": "a"}, {"double_param": 2.0}]
    ),
    max_size=2,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": WORDS,
        "datatype": WORDS,
        "shape": st.just([1, 32, 32, 3]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    },
    optional={
        "parameters": PARAMETERS,
        "contents": st.fixed_dictionaries(
            {}, optional={"uint_contents": st.just([7] * 3072), "bool_contents": st.just([True])}
        ),
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model_version": WORDS,
            "id": WORDS,
            "parameters": PARAMETERS,
            "inputs": st.lists(st.just(IMAGE) | INPUTS, max_size=2),
            "outputs": st.lists(
                st.fixed_dictionaries({"name": WORDS}, optional={"parameters": PARAMETERS}),
                max_size=2,
            ),
            "raw_input_contents": st.lists(
                st.just(bytes(3072)) | st.binary(max_size=9), max_size=2
            ),
        },
    )
)
@settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_invalid_request_is_a_server_error(
    server: Server, pixels: Pixels, changes: dict[str, Any]
) -> None:
    with stub_of(address(server)) as stub:
        call = stub.ModelInfer.future(image_request(pixels, **changes))
        assert call.code() in (StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND)
        assert call.code() != StatusCode.OK or call.result().outputs


def test_messages_and_responses_are_limited_in_size(repository: Path, pixels: Pixels) -> None:
    bomb = bytes(2**20)  # compresses to a kilobyte
    with running_server(
        repository, max_upload_bytes=50_000, max_answer_bytes=100_000, grpc_port=0
    ) as server:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with stub_of(address(server), compression=compression) as stub:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(image_request(pixels, raw_input_contents=[bomb]))
                assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
                large = image_request(pixels, outputs=[{"name": "softmax.map.00"}])
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(large)
                assert caught.value.code() == StatusCode.INVALID_ARGUMENT
                assert "at most 100,000" in caught.value.details()
                assert stub.ModelInfer(image_request(pixels)).outputs


def test_a_full_queue_says_when_to_retry(repository: Path, pixels: Pixels) -> None:
    async def scenario(running: Runtime) -> None:
        model = running.pipeline.models.get(DEEPVIT)
        async with (
            served(running) as (_, server),
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            stub = GRPCInferenceServiceStub(channel)
            with model.classifier.admit(2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ModelInfer(
                        image_request(pixels), metadata=(("x-request-id", "abc"),)
                    )
                refused = caught.value
                assert refused.code() == StatusCode.RESOURCE_EXHAUSTED
                assert "2 of 2 queue slots are taken" in (refused.details() or "")
                metadata = dict(refused.trailing_metadata())
                assert int(metadata["retry-after"]) >= 1
                assert metadata["x-request-id"] == "abc"
            assert (await stub.ModelInfer(image_request(pixels))).outputs
        assert model.classifier._reserved == 0
        assert model.statistics.snapshot().failure.count == 1

    with running_service(repository, max_queue_images=2) as running:
        asyncio.run(scenario(running))


@contextmanager
def held(running: Runtime) -> Iterator[Any]:
    """Makes the classifier wait until the block ends."""
    model = running.pipeline.models.get(DEEPVIT)
    released = threading.Event()
    run = model.classifier._run

    def wait(images: Any, key: Any) -> Any:
        assert released.wait(60)
        return run(images, key)

    model.classifier._run = wait
    try:
        yield model
    finally:
        released.set()


async def accepted(model: Any, images: int) -> None:
    async with asyncio.timeout(60):
        while model.classifier.counts.accepted < images:
            await asyncio.sleep(0.01)


def test_cancelled_and_late_requests_give_up_their_queue_slots(
    repository: Path, pixels: Pixels
) -> None:
    async def scenario(running: Runtime) -> None:
        async with (
            served(running) as (_, server),
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            ask = partial(GRPCInferenceServiceStub(channel).ModelInfer, image_request(pixels))
            with held(running) as model:
                first = ask()
                await accepted(model, 1)
                leaving = [ask() for _ in range(4)]
                staying = [ask() for _ in range(4)]
                await accepted(model, 9)
                for call in leaving:
                    call.cancel()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(timeout=2)
                assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
                async with asyncio.timeout(60):
                    while model.classifier.depth > 4:
                        await asyncio.sleep(0.01)
            for answer in (first, *staying):
                assert len((await answer).raw_output_contents[0]) == 40
        counts = model.classifier.counts
        assert (counts.accepted, counts.answered, counts.cancelled) == (10, 5, 5)
        assert counts.in_flight == model.classifier._reserved == model.requests == 0

    with running_service(repository) as running:
        asyncio.run(scenario(running))


def test_requests_past_the_server_s_timeout_are_not_computed(
    repository: Path, pixels: Pixels
) -> None:
    async def scenario(running: Runtime) -> None:
        async with served(running) as (client, _):
            with held(running) as model:
                first = asyncio.create_task(client.infer(DEEPVIT, [tensor(pixels)]))
                await accepted(model, 1)
                running.request_timeout_s = 1e-3
                late = asyncio.create_task(client.infer(DEEPVIT, [tensor(pixels)]))
                await accepted(model, 2)
            with pytest.raises(
                InferenceServerException, match="would have come too late"
            ) as caught:
                await late
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            assert (await first).as_numpy("logits").shape == (1, 10)
        assert model.classifier.counts.expired == 1

    with running_service(repository) as running:
        asyncio.run(scenario(running))


def test_draining_finishes_running_requests_and_accepts_no_more(
    repository: Path, pixels: Pixels
) -> None:
    async def scenario(running: Runtime) -> None:
        async with (
            served(running) as (client, server),
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            health = HealthStub(channel)
            watching = health.Watch(HealthCheckRequest())
            assert (await watching.read()).status == HealthCheckResponse.SERVING
            with held(running) as model:
                under_way = asyncio.create_task(client.infer(DEEPVIT, [tensor(pixels)]))
                await accepted(model, 1)
                running.draining = True
                assert (await watching.read()).status == HealthCheckResponse.NOT_SERVING
                assert await watching.read() == grpc.aio.EOF
                assert not await client.is_server_ready()
                assert not await client.is_model_ready(DEEPVIT)
                assert await client.is_server_live()
                for work in (
                    client.infer(DEEPVIT, [tensor(pixels)]),
                    client.unload_model(DEEPVIT),
                    client.load_model(DEEPVIT),
                ):
                    with pytest.raises(InferenceServerException, match="shutting down") as caught:
                        await work
                    assert caught.value.status() == "StatusCode.UNAVAILABLE"
                stopping = asyncio.create_task(server.stop(60))
            assert (await under_way).as_numpy("logits").shape == (1, 10)
            await stopping

    with running_service(repository) as running:
        asyncio.run(scenario(running))


def test_sigterm_stops_a_server_with_idle_streams(repository: Path, pixels: Pixels) -> None:
    with (
        running_server(repository, grpc_port=0, drain_delay_s=1, drain_timeout_s=600) as server,
        InferenceServerClient(address(server)) as triton,
        grpc.insecure_channel(address(server)) as channel,
    ):
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        triton.start_stream(lambda result, error: answers.put((result, error)))
        triton.async_stream_infer(DEEPVIT, [tensor(pixels)])
        assert answers.get(timeout=60)[0].as_numpy("logits").shape == (1, 10)
        watching = HealthStub(channel).Watch(HealthCheckRequest())
        assert next(watching).status == HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watching).status == HealthCheckResponse.NOT_SERVING
        assert server.process.wait(timeout=60) == 0
        assert "Traceback" not in "".join(server.log)


def test_the_standard_health_service(server: Server) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        health = HealthStub(channel)
        for name in ("", SERVICE):
            answer = health.Check(HealthCheckRequest(service=name))
            assert answer.status == HealthCheckResponse.SERVING
        assert set(health.List(HealthListRequest()).statuses) == {"", SERVICE}
        unknown = HealthCheckRequest(service="inference.Other")
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(unknown)
        assert caught.value.code() == StatusCode.NOT_FOUND
        (answer,) = health.Watch(unknown)
        assert answer.status == HealthCheckResponse.SERVICE_UNKNOWN


def test_everything_but_health_needs_an_api_key(repository: Path, pixels: Pixels) -> None:
    with (
        running_server(repository, api_keys="first-key, second-key", grpc_port=0) as server,
        InferenceServerClient(address(server)) as triton,
        grpc.insecure_channel(address(server)) as channel,
    ):
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert HealthStub(channel).Check(HealthCheckRequest()).status
        infer = partial(triton.infer, DEEPVIT, [tensor(pixels)])
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "first-key"}):
            for call in (infer, triton.get_server_metadata, triton.get_model_repository_index):
                with pytest.raises(InferenceServerException, match="A valid API key") as caught:
                    call(headers=headers)
                assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        for headers in (
            {"authorization": "Bearer first-key"},
            {"authorization": "bearer second-key"},
            {"x-api-key": "second-key"},
        ):
            assert infer(headers=headers).as_numpy("logits").shape == (1, 10)
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        triton.start_stream(lambda result, error: answers.put((result, error)))
        assert "A valid API key" in answers.get(timeout=60)[1].message()
        triton.stop_stream()
        assert "first-key" not in "".join(server.log)


def test_models_are_loaded_and_unloaded_on_request(
    repository: Path, pixels: Pixels, tmp_path: Path
) -> None:
    with (
        running_server(copied(repository, tmp_path), grpc_port=0) as server,
        InferenceServerClient(address(server)) as triton,
        stub_of(address(server)) as stub,
    ):

        def index(**options: Any) -> list[tuple[str, ...]]:
            found = stub.RepositoryIndex(pb.RepositoryIndexRequest(**options)).models
            return [(one.name, one.version, one.state, one.reason) for one in found]

        triton.unload_model(DEEPVIT)
        shutil.copytree(repository / VIT, tmp_path / VIT)
        assert index() == [(DEEPVIT, "1", "UNAVAILABLE", "unloaded"), (VIT, "", "", "")]
        assert index(ready=True) == []
        with pytest.raises(InferenceServerException, match="No such model"):
            triton.infer(DEEPVIT, [tensor(pixels)])
        for name in (VIT, DEEPVIT):
            triton.load_model(name)
            assert triton.infer(name, [tensor(pixels)]).as_numpy("logits").shape == (1, 10)
        assert sorted(index(ready=True)) == [(DEEPVIT, "1", "READY", ""), (VIT, "1", "READY", "")]
        for call, status in [
            (partial(triton.load_model, "resnet"), "NOT_FOUND"),
            (partial(triton.unload_model, "resnet"), "NOT_FOUND"),
            (partial(triton.load_model, VIT, config="{}"), "INVALID_ARGUMENT"),
        ]:
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert caught.value.status() == f"StatusCode.{status}"


def test_every_error_has_a_code() -> None:
    def tree(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
        yield error
        for child in error.__subclasses__():
            yield from tree(child)

    only_over_http = {RequestTimeout, UriTooLong, HeadersTooLarge}
    assert {error.status for error in {*tree(ServiceError)} - only_over_http} <= STATUS_CODES.keys()


def test_a_port_in_use_stops_the_start_with_one_line(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = subprocess.run(
            [sys.executable, "-m", "service", "--port", "0", "--grpc-port", str(port),
             "--model-repository", str(repository), "--log-format", "text"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr.endswith(f"service: gRPC cannot listen on 127.0.0.1:{port}\n")
    assert "Traceback" not in found.stderr


def test_without_the_package_the_start_ends_with_one_line(repository: Path) -> None:
    code = f"""if True:
        import sys
        sys.modules["grpc"] = None
        from service.__main__ import main
        sys.exit(main(["--grpc-port", "0", "--model-repository", {str(repository)!r}]))
    """
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stderr.startswith("service: grpc_port needs the package grpcio: pip install")


def test_the_server_is_still_well(server: Server, triton: Any, pixels: Pixels) -> None:
    """Must be the last test in this file."""
    assert triton.is_server_ready()
    assert triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits").shape == (1, 10)
    assert "Traceback" not in "".join(server.log)
