"""Clients that leave at any moment: what they asked for is given up, and none of it is an error."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from models.arrays import Pixels
from tests.conftest import DEEPVIT
from tests.service.oip.grpc.calls import SERVICE, address, image_request, stub_of
from tests.service.oip.grpc.http2 import calling, prefixed
from tests.support.server import Server, running_server
from tests.support.waiting import until

ROUNDS = 60
MAPS = [f"{stage}.map.{block:02}" for stage in ("softmax", "reattention") for block in range(16)]


def large(pixels: Pixels) -> Any:
    """A request for an answer of 3 MB, which takes many frames."""
    return image_request(pixels, outputs=[{"name": name} for name in MAPS])


def cancel(server: Server, pixels: Pixels, seed: int) -> None:
    """Calls of all kinds that are cancelled, or whose deadlines pass, soon after they began."""
    moments = random.Random(seed)
    with stub_of(address(server)) as stub:
        for _ in range(ROUNDS):
            request = moments.choice(
                [image_request(pixels), large(pixels), image_request(pixels, model_name="none")]
            )
            deadline = moments.choice([None, moments.uniform(0.0001, 0.05)])
            begun: Any
            if moments.random() < 0.7:
                begun = stub.ModelInfer.future(request, timeout=deadline)
            else:
                begun = stub.ModelStreamInfer(iter([request] * 3), timeout=deadline)
            leaving = threading.Timer(moments.uniform(0, 0.02), begun.cancel)
            leaving.start()
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                begun.result() if isinstance(begun, grpc.Future) else list(begun)
            leaving.join()


def disconnect(server: Server, pixels: Pixels, seed: int) -> None:
    """Connections that are closed after a part of a request, or of its answer."""
    moments = random.Random(seed)
    for _ in range(ROUNDS):
        request = moments.choice([image_request(pixels), large(pixels)]).SerializeToString()
        with calling(address(server), moments.choice(["ModelInfer", "ModelStreamInfer"])) as call:
            call.send(prefixed(request)[: moments.choice([3, 100, None])])
            for _ in range(moments.randrange(4)):
                call.receive_if_any()


def test_clients_that_leave_are_no_errors(repository: Path, pixels: Pixels) -> None:
    with running_server(repository, grpc_port=0, drain_delay_s=0) as server:
        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(cancel, server, pixels, seed) for seed in range(4)]
            done += [pool.submit(disconnect, server, pixels, seed) for seed in range(4)]
            for one in done:
                one.result()
        with stub_of(address(server)) as stub:
            assert stub.ModelInfer(image_request(pixels)).model_name == DEEPVIT
        assert server.terminate() == 0
    lines = [json.loads(line) for line in server.log]
    wrong = [line for line in lines if line["level"] != "INFO" or "exc_info" in line]
    assert not wrong
    statuses = {line["status"] for line in lines if line["logger"] == "service.access"}
    assert "CANCELLED" in statuses
    assert statuses <= {"OK", "CANCELLED", "NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"}


def test_a_call_that_is_cancelled_has_one_line(repository: Path, pixels: Pixels) -> None:
    with running_server(repository, grpc_port=0) as server:
        with grpc.insecure_channel(address(server)) as channel:
            parse = pb.ModelStreamInferResponse.FromString
            stream = channel.stream_stream(
                f"/{SERVICE}/ModelStreamInfer", response_deserializer=parse
            )
            ended = stream(iter([image_request(pixels).SerializeToString()]))
            assert len(list(ended)) == 1
            with calling(address(server), "ModelInfer") as call:
                call.send(prefixed(image_request(pixels).SerializeToString())[:-1])
        until(lambda: sum("CANCELLED" in line for line in server.log) == 1)
        ours = [json.loads(line) for line in server.log if "service.access" in line]
    assert sorted(line["status"] for line in ours) == ["CANCELLED", "OK"]
