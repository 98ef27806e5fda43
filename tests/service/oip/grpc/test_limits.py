"""Over gRPC: sizes, full queues, deadlines, clients that leave, API keys."""

import asyncio
import queue
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from service.runtime import Runtime
from tests.conftest import DEEPVIT
from tests.service.oip.grpc.calls import (
    address,
    image_request,
    served,
    stub_of,
    tensor,
)
from tests.support.counts import settled_counts
from tests.support.server import running_server
from tests.support.service import accepted, held, running_service


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
                with server.client() as client:
                    before = settled_counts(client)["accepted"]
                    assert stub.ModelInfer(image_request(pixels)).outputs
                    assert settled_counts(client)["accepted"] == before + 1
        assert before == 1  # of the first round: nothing that was refused was computed


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
                running.request_timeout_s = 0.5
                late = asyncio.create_task(client.infer(DEEPVIT, [tensor(pixels)]))
                await accepted(model, 2)
                deadline = running.deadline()  # a little after that of the request
                while time.perf_counter() < deadline:
                    await asyncio.sleep(0.01)
            with pytest.raises(
                InferenceServerException, match="would have come too late"
            ) as caught:
                await late
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            assert (await first).as_numpy("logits").shape == (1, 10)
        assert model.classifier.counts.expired == 1

    with running_service(repository) as running:
        asyncio.run(scenario(running))


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
            {"authorization": "Bearer some.other.token", "x-api-key": "second-key"},
        ):
            assert infer(headers=headers).as_numpy("logits").shape == (1, 10)
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        triton.start_stream(lambda result, error: answers.put((result, error)))
        assert "A valid API key" in answers.get(timeout=60)[1].message()
        triton.stop_stream()
        assert "first-key" not in "".join(server.log)
