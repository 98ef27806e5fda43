"""Requests over gRPC, good and bad, each with a name; and an answer without what varies."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.triton.answers import Answer
from tests.triton.rest import MODEL

_PIXELS = bytes(range(256)) * 12  # of one image
_IMAGE: dict[str, Any] = {
    "name": "images",
    "datatype": "UINT8",
    "shape": [1, 32, 32, 3],
    "contents": None,
}
_TYPED = {"uint_contents": list(_PIXELS)}


@dataclass(frozen=True)
class Call:
    name: str
    method: str  # of the protocol; its request's type has the same name
    fields: dict[str, Any] = field(default_factory=dict)

    def ask(self, channel: grpc.Channel) -> Answer:
        call = getattr(GRPCInferenceServiceStub(channel), self.method)
        try:
            message = call(getattr(pb, f"{self.method}Request")(**self.fields), timeout=60)
        except grpc.RpcError as exc:
            return Answer.of(exc.code().name, None)
        found = MessageToDict(message, preserving_proto_field_name=True)
        return Answer.of("OK", found)


def calls() -> Iterator[Call]:
    """In the order in which they are sent: the last ones load and unload the model."""
    yield from _about()
    yield from _good()
    yield from _bad()
    yield from _repository()


def _about() -> Iterator[Call]:
    for name, method in {
        "server live": "ServerLive",
        "server ready": "ServerReady",
        "server metadata": "ServerMetadata",
        "statistics of every model": "ModelStatistics",
        "shared memory": "SystemSharedMemoryStatus",
        "trace settings": "TraceSetting",
        "log settings": "LogSettings",
    }.items():
        yield Call(name, method)
    for name, method in {
        "model ready": "ModelReady",
        "model metadata": "ModelMetadata",
        "configuration": "ModelConfig",
        "statistics": "ModelStatistics",
    }.items():
        yield Call(name, method, {"name": MODEL})
        yield Call(f"{name}, an unknown model", method, {"name": "resnet"})
        yield Call(f"{name}, an unknown version", method, {"name": MODEL, "version": "7"})
        yield Call(f"{name}, a version that is no number", method, {"name": MODEL, "version": "x"})


def _good() -> Iterator[Call]:
    yield _infer("infer")
    yield _infer("infer, a version", model_version="1")
    yield _infer("infer, an id", id="a request")
    yield _infer("infer, the output by name", outputs=[{"name": "logits"}])
    yield _infer("infer, 2 classes", outputs=[_classes(int64_param=2)])
    yield _infer("infer, more classes than there are", outputs=[_classes(int64_param=99)])
    yield _infer("infer, an unknown parameter", parameters={"colour": {"string_param": "blue"}})
    yield _infer("infer, two images", _PIXELS * 2, shape=[2, 32, 32, 3])
    yield _infer("infer, the largest batch", _PIXELS * 32, shape=[32, 32, 32, 3])
    yield _infer("infer, typed contents", None, contents=_TYPED)


def _bad() -> Iterator[Call]:
    yield _infer("infer, an unknown model", model_name="resnet")
    yield _infer("infer, an unknown version", model_version="7")
    yield _infer("infer, a version that is no number", model_version="latest")
    yield _infer("infer, no inputs", None, inputs=[])
    yield _infer("input: another name", name_of_input="image")
    yield _infer("input: no name", name_of_input="")
    yield _infer("input: another datatype", datatype="FP32")
    yield _infer("input: an unknown datatype", datatype="PIXEL")
    yield _infer("input: no datatype", datatype="")
    yield _infer("input: no shape", shape=[])
    yield _infer("input: a shape without the batch", shape=[32, 32, 3])
    yield _infer("input: a shape of another size", shape=[1, 3, 32, 32])
    yield _infer("input: a negative length", shape=[-1, 32, 32, 3])
    yield _infer("input: an empty batch", b"", shape=[0, 32, 32, 3])
    yield _infer("input: a batch that is too large", _PIXELS * 33, shape=[33, 32, 32, 3])
    yield _infer("input: no data", None)
    yield _infer("input: a byte too few", _PIXELS[1:])
    yield _infer("input: a byte too many", _PIXELS + b"x")
    yield _infer("input: raw contents twice", raw_input_contents=[_PIXELS] * 2)
    yield _infer("input: contents of both kinds", contents=_TYPED)
    yield _infer("input: contents of another type", None, contents={"fp32_contents": [1.0] * 3072})
    yield _infer("input: twice", inputs=[_IMAGE] * 2, raw_input_contents=[_PIXELS] * 2)
    yield _infer("output: an unknown one", outputs=[{"name": "x"}])
    yield _infer("output: twice", outputs=[{"name": "logits"}] * 2)
    yield _infer("output: 0 classes", outputs=[_classes(int64_param=0)])
    yield _infer("output: -1 classes", outputs=[_classes(int64_param=-1)])
    yield _infer("output: classes as text", outputs=[_classes(string_param="2")])
    yield _infer("parameters: a sequence", parameters={"sequence_id": {"int64_param": 7}})


def _repository() -> Iterator[Call]:
    one, unknown = {"model_name": MODEL}, {"model_name": "resnet"}
    yield Call("index", "RepositoryIndex")
    yield Call("index, ready ones", "RepositoryIndex", {"ready": True})
    yield Call("load an unknown model", "RepositoryModelLoad", unknown)
    yield Call("unload an unknown model", "RepositoryModelUnload", unknown)
    yield Call("load", "RepositoryModelLoad", one)
    yield Call("unload", "RepositoryModelUnload", one)
    yield Call("model ready, unloaded", "ModelReady", {"name": MODEL})
    yield Call("model metadata, unloaded", "ModelMetadata", {"name": MODEL})
    yield _infer("infer, unloaded")
    yield Call("index, one unloaded", "RepositoryIndex")
    yield Call("load again", "RepositoryModelLoad", one)
    yield _infer("infer, loaded again")


def _infer(
    name: str, raw: bytes | None = _PIXELS, *, name_of_input: str = "images", **changes: Any
) -> Call:
    """`changes` are fields of the request, or of its input."""
    of_input = {key: changes.pop(key) for key in _IMAGE.keys() & changes}
    fields: dict[str, Any] = {
        "model_name": MODEL,
        "inputs": [_IMAGE | {"name": name_of_input} | of_input],
        "raw_input_contents": [] if raw is None else [raw],
    }
    return Call(name, "ModelInfer", fields | changes)


def _classes(**count: Any) -> dict[str, Any]:
    return {"name": "logits", "parameters": {"classification": count}}
