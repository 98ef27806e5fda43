"""Inference requests of the Open Inference Protocol, as bodies of `/v2` and as gRPC messages."""

import random
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import ModelInferRequest

from models.size import Size
from service.errors import ServiceError
from service.oip import compression, rest
from service.oip.grpc import codec
from service.oip.inference import Contract, InferRequest
from tests.fuzz.mutations import mutated

_LABELS = ("cat", "dog: small", "Käfer")
_SHAPES = {"logits": (3,), "maps": (2, 5)}
_CONTRACT = Contract(size=Size.of(2), max_batch_size=4, outputs=_SHAPES, labels=_LABELS)
_IMAGE_BYTES = 12
_MAX_BYTES = 10**6
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63 - 1, 2**64 - 1, 1.5, 1e308, "", "x" * 300, "\ud7ff"),
    *([], {}, [[]], [None], [0] * 13, {"": {}}, "UINT8", "INT64", "logits", 12, 255, 256, -0.0),
)


def make_rest(chance: random.Random) -> bytes:
    """Two lines, of Content-Encoding and Inference-Header-Content-Length, and the body."""
    message, tail = _message(chance)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        message = _changed(chance, message)
    text = orjson.dumps(message)
    length = str(len(text)) if tail or chance.random() < 0.3 else ""
    body = text + tail
    if chance.random() < 0.4:
        body = mutated(chance, body, [text, tail, b"[" * 2000, b'{"inputs":' * 50])
    if chance.random() < 0.2:
        length = chance.choice(("-1", "9" * 18, "9" * 30, "1e2", "٣", " 7 ", str(len(body) + 1)))
    encoding = chance.choice(("", "", "", "gzip", "deflate", "br", "identity"))
    if encoding in ("gzip", "deflate"):
        packer = zlib.compressobj(wbits={"gzip": 31, "deflate": 15}[encoding])
        body = packer.compress(body * chance.choice((1, 1, 1, 5000))) + packer.flush()
        if chance.random() < 0.4:
            body = mutated(chance, body, [body])
    return b"\n".join([encoding.encode(), length.encode(), body])


def take_rest(data: bytes) -> None:
    encoding, length, body = data.split(b"\n", 2)
    accepted = _refused_or(lambda: _read_rest(body, encoding.decode(), length.decode() or None))
    if accepted:
        rest.encode(accepted, _results(accepted), model="m", version=1, labels=_LABELS)


def _read_rest(body: bytes, encoding: str, length: str | None) -> InferRequest:
    return rest.decode(compression.decompress(body, encoding, _MAX_BYTES), length, _CONTRACT)


def make_grpc(chance: random.Random) -> bytes:
    message = ModelInferRequest(model_name="m", id=chance.choice(("", "7", "é")))
    count = chance.randint(1, 4)
    tensor = message.inputs.add(name="images", datatype="UINT8", shape=[count, 2, 2, 3])
    if chance.random() < 0.5:
        message.raw_input_contents.append(bytes(count * _IMAGE_BYTES))
    else:
        tensor.contents.uint_contents.extend([7] * (count * _IMAGE_BYTES))
    for name in chance.sample(sorted(_SHAPES), chance.randint(0, 2)):
        wanted = message.outputs.add(name=name)
        if chance.random() < 0.5:
            wanted.parameters["classification"].int64_param = chance.choice((0, 1, 3, -1, 2**62))
    if chance.random() < 0.3:
        message.parameters["priority"].uint64_param = 1
    content = message.SerializeToString()
    return mutated(chance, content, [content, tensor.SerializeToString()])


def take_grpc(data: bytes) -> None:
    try:
        message = ModelInferRequest.FromString(data)
    except DecodeError:  # gRPC itself answers this
        return
    accepted = _refused_or(lambda: codec.decode(message, _CONTRACT))
    if accepted:
        codec.encode(accepted, _results(accepted), model="m", version=1, labels=_LABELS)


def _refused_or(read: Callable[[], InferRequest]) -> InferRequest | None:
    """The request that was read; None if it was refused as the client's fault."""
    try:
        request = read()
    except ServiceError as exc:
        if exc.status >= 500:
            raise
        return None
    assert request.images.dtype == np.uint8
    assert 1 <= len(request.images) <= _CONTRACT.max_batch_size
    assert request.images.shape[1:] == (2, 2, 3)
    return request


def _results(request: InferRequest) -> list[dict[str, Any]]:
    outputs = {name: np.zeros(shape, np.float32) for name, shape in _SHAPES.items()}
    return [outputs] * len(request.images)


def _message(chance: random.Random) -> tuple[dict[str, Any], bytes]:
    """A valid request, and the binary tensor that follows it or not."""
    count = chance.randint(1, 4)
    tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [count, 2, 2, 3]}
    tail = b""
    form = chance.choice(("flat", "nested", "binary"))
    if form == "binary":
        tail = bytes(count * _IMAGE_BYTES)
        tensor["parameters"] = {"binary_data_size": len(tail)}
    else:
        pixels = np.arange(count * _IMAGE_BYTES).reshape(count, 2, 2, 3)
        tensor["data"] = pixels.tolist() if form == "nested" else pixels.ravel().tolist()
    message: dict[str, Any] = {"id": "7", "inputs": [tensor]}
    if chance.random() < 0.5:
        message["outputs"] = [
            {"name": name, "parameters": {"binary_data": True, "classification": 2}}
            for name in chance.sample(sorted(_SHAPES), chance.randint(0, 2))
        ]
    if chance.random() < 0.3:
        message["parameters"] = {"binary_data_output": True}
    return message, tail


def _changed(chance: random.Random, value: Any) -> Any:
    """With one place replaced, removed, doubled or wrapped."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(sorted(value))
        rest_of_it = {key: part for key, part in value.items() if key != name}
        if chance.random() < 0.1:
            return rest_of_it
        return rest_of_it | {name: _changed(chance, value[name])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        change = chance.choice((lambda: [], lambda: [value[at]] * 2, None, None))
        parts = change() if change else [_changed(chance, value[at])]
        return [*value[:at], *parts, *value[at + 1 :]]
    return chance.choice((*_ODD, [value], {"name": value}))
