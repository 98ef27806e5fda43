"""Over gRPC: health, draining, models that are loaded and unloaded, starts that fail."""

import asyncio
import queue
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from models.arrays import Pixels
from service.runtime import Runtime
from tests.conftest import DEEPVIT, VIT
from tests.service.oip.grpc.calls import (
    SERVICE,
    address,
    served,
    stub_of,
    tensor,
)
from tests.support.server import ROOT, Server, running_server
from tests.support.service import accepted, held, running_service
from tests.support.versions import copied


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
