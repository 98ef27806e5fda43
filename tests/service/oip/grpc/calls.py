"""How tests of gRPC call: addresses, messages, and a server in the tests' process."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from models.arrays import Pixels
from service.oip.grpc.server import GrpcServer
from service.runtime import Runtime
from tests.conftest import DEEPVIT
from tests.support.server import Server

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
    options = {"max_unsent_bytes": 2**26, **options}
    server = GrpcServer(running, host="127.0.0.1", port=0, **options)
    await server.start()
    async with triton_aio.InferenceServerClient(server.address) as client:
        yield client, server
    await server.stop(0)


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
