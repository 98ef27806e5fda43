"""Requests over REST, good and bad, each with a name; and an answer without what varies."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.triton.answers import Answer

MODEL = "deepvit16-cifar10"
_MODEL = f"/v2/models/{MODEL}"
_INFER = f"{_MODEL}/infer"
_LENGTH = "Inference-Header-Content-Length"
_PIXELS = bytes(range(256)) * 12  # of one image
_MISSING: Any = object()


@dataclass(frozen=True)
class Request:
    name: str
    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, client: httpx.Client) -> Answer:
        response = client.request(
            self.method, self.path, content=self.content, headers=self.headers
        )
        found, length = response.content, response.headers.get(_LENGTH)
        if length:
            text = json.loads(found[: int(length)])
            return Answer.of(response.status_code, text, binary=len(found) > int(length))
        try:  # Triton calls some of its JSON text
            return Answer.of(response.status_code, json.loads(found) if found else None)
        except json.JSONDecodeError:
            return Answer.of(response.status_code, "text")


def requests() -> Iterator[Request]:
    """In the order in which they are sent: the last ones load and unload the model."""
    yield from _about()
    yield from _good()
    yield from _bad()
    yield from _repository()


def _about() -> Iterator[Request]:
    for name, path in {
        "server metadata": "/v2",
        "server live": "/v2/health/live",
        "server ready": "/v2/health/ready",
        "model metadata": _MODEL,
        "model metadata, a version": f"{_MODEL}/versions/1",
        "model metadata, an unknown model": "/v2/models/resnet",
        "model metadata, an unknown version": f"{_MODEL}/versions/7",
        "model metadata, a version that is no number": f"{_MODEL}/versions/latest",
        "model ready": f"{_MODEL}/ready",
        "model ready, a version": f"{_MODEL}/versions/1/ready",
        "model ready, an unknown model": "/v2/models/resnet/ready",
        "model ready, an unknown version": f"{_MODEL}/versions/7/ready",
        "configuration": f"{_MODEL}/config",
        "configuration, an unknown model": "/v2/models/resnet/config",
        "statistics": f"{_MODEL}/stats",
        "statistics of every model": "/v2/models/stats",
        "statistics, an unknown model": "/v2/models/resnet/stats",
        "shared memory": "/v2/systemsharedmemory/status",
        "trace settings": "/v2/trace/setting",
        "log settings": "/v2/logging",
        "an unknown path": "/v2/nothing",
        "infer with GET": _INFER,
    }.items():
        yield Request(name, "GET", path)


def _good() -> Iterator[Request]:
    yield _infer("infer")
    yield _infer("infer, a version", path=f"{_MODEL}/versions/1/infer")
    yield _infer("infer, an id", id="a request")
    yield _infer("infer, an empty id", id="")
    yield _infer("infer, the output by name", outputs=[{"name": "logits"}])
    yield _infer("infer, no outputs in a list", outputs=[])
    nested = np.frombuffer(_PIXELS, np.uint8).reshape(1, 32, 32, 3).tolist()
    yield _infer("infer, nested data", image={"data": nested})
    yield _infer("infer, two images", image={"shape": [2, 32, 32, 3], "data": list(_PIXELS) * 2})
    yield _infer("infer, the largest batch", image={"shape": [32, 32, 32, 3], "data": [7] * 98304})
    yield _infer("infer, binary output for all", parameters={"binary_data_output": True})
    yield _infer("infer, binary output", outputs=[_output(binary_data=True)])
    yield _infer(
        "infer, one output not binary",
        outputs=[_output(binary_data=False)],
        parameters={"binary_data_output": True},
    )
    yield _infer("infer, 2 classes", outputs=[_output(classification=2)])
    yield _infer("infer, 2 classes, binary", outputs=[_output(classification=2, binary_data=True)])
    yield _infer("infer, more classes than there are", outputs=[_output(classification=99)])
    yield _infer("infer, an unknown parameter", parameters={"colour": "blue"})
    yield _infer("infer, a priority and a timeout", parameters={"priority": 1, "timeout": 10**6})
    yield _infer("infer, an unknown field", colour="blue")
    yield _infer("infer, a content type of text", headers={"Content-Type": "text/plain"})
    text = _text()
    yield Request(
        "infer, compressed", "POST", _INFER, gzip.compress(text), {"Content-Encoding": "gzip"}
    )
    yield _binary("infer, binary input", len(_PIXELS), _PIXELS)


def _bad() -> Iterator[Request]:
    yield _infer("infer, an unknown model", path="/v2/models/resnet/infer")
    yield _infer("infer, an unknown version", path=f"{_MODEL}/versions/7/infer")
    yield Request("infer, no body", "POST", _INFER)
    yield Request("infer, not JSON", "POST", _INFER, b"{")
    yield Request("infer, a list", "POST", _INFER, b"[]")
    yield _infer("infer, no inputs", inputs=_MISSING)
    yield _infer("infer, an empty list of inputs", inputs=[])
    for name, changes in {
        "another name": {"name": "image"},
        "no name": {"name": _MISSING},
        "another datatype": {"datatype": "FP32"},
        "an unknown datatype": {"datatype": "PIXEL"},
        "no datatype": {"datatype": _MISSING},
        "no shape": {"shape": _MISSING},
        "a shape without the batch": {"shape": [32, 32, 3]},
        "a shape of another size": {"shape": [1, 3, 32, 32]},
        "a negative length": {"shape": [-1, 32, 32, 3]},
        "an empty batch": {"shape": [0, 32, 32, 3], "data": []},
        "a batch that is too large": {"shape": [33, 32, 32, 3], "data": [0] * 33 * 3072},
        "no data": {"data": _MISSING},
        "a value too few": {"data": [0] * 3071},
        "a value too many": {"data": [0] * 3073},
        "a value of 256": {"data": [256] * 3072},
        "a value of -1": {"data": [-1] * 3072},
        "a value of 0.5": {"data": [0.5] * 3072},
        "a value of true": {"data": [True] * 3072},
        "values as text": {"data": ["1"] * 3072},
        "shared memory": {
            "data": _MISSING,
            "parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 3072},
        },
    }.items():
        yield _infer(f"input: {name}", image=changes)
    yield _infer("input: twice", inputs=[_image({}), _image({})])
    yield _infer("input: another one beside it", inputs=[_image({}), _image({"name": "x"})])
    yield _infer("output: an unknown one", outputs=[{"name": "x"}])
    yield _infer("output: twice", outputs=[{"name": "logits"}] * 2)
    yield _infer("output: 0 classes", outputs=[_output(classification=0)])
    yield _infer("output: -1 classes", outputs=[_output(classification=-1)])
    yield _infer("output: classes as text", outputs=[_output(classification="2")])
    yield _infer("parameters: a sequence", parameters={"sequence_id": 7, "sequence_start": True})
    yield _infer("parameters: a list", parameters=[])
    yield _infer("parameters: binary output as text", parameters={"binary_data_output": "yes"})
    yield _infer("id: a number", id=7)
    yield _binary("binary: a byte too few", len(_PIXELS) - 1, _PIXELS[1:])
    yield _binary("binary: a byte that nobody declared", len(_PIXELS), _PIXELS + b"x")
    yield _binary("binary: more declared than sent", len(_PIXELS), _PIXELS[1:])
    yield _binary("binary: a length of JSON beyond the body", len(_PIXELS), b"", length="99999")
    yield _binary("binary: a length of JSON that is no number", len(_PIXELS), b"", length="x")
    yield Request("compressed: not gzip", "POST", _INFER, _text(), {"Content-Encoding": "gzip"})
    yield Request("compressed: unknown", "POST", _INFER, _text(), {"Content-Encoding": "zstd"})


def _repository() -> Iterator[Request]:
    load, unload = (f"/v2/repository/models/{MODEL}/{action}" for action in ("load", "unload"))
    yield Request("index", "POST", "/v2/repository/index")
    yield Request("index, ready ones", "POST", "/v2/repository/index", b'{"ready": true}')
    yield Request("index, not JSON", "POST", "/v2/repository/index", b"{")
    yield Request("load an unknown model", "POST", "/v2/repository/models/resnet/load")
    yield Request("unload an unknown model", "POST", "/v2/repository/models/resnet/unload")
    yield Request("load", "POST", load)
    yield Request("load, not JSON", "POST", load, b"{")
    yield Request("unload", "POST", unload, b'{"parameters": {"unload_dependents": false}}')
    yield Request("model ready, unloaded", "GET", f"{_MODEL}/ready")
    yield Request("model metadata, unloaded", "GET", _MODEL)
    yield _infer("infer, unloaded")
    yield Request("unload again", "POST", unload)
    yield Request("index, one unloaded", "POST", "/v2/repository/index")
    yield Request("load again", "POST", load)
    yield _infer("infer, loaded again")


def _image(changes: dict[str, Any]) -> dict[str, Any]:
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": list(_PIXELS)}
    return {name: value for name, value in (image | changes).items() if value is not _MISSING}


def _output(**parameters: Any) -> dict[str, Any]:
    return {"name": "logits", "parameters": parameters}


def _text(image: dict[str, Any] | None = None, **fields: Any) -> bytes:
    message = {"inputs": [_image(image or {})], **fields}
    return json.dumps({k: v for k, v in message.items() if v is not _MISSING}).encode()


def _infer(
    name: str,
    *,
    path: str = _INFER,
    image: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Request:
    return Request(name, "POST", path, _text(image, **fields), headers or {})


def _binary(name: str, declared: int, pixels: bytes, length: str = "") -> Request:
    text = _text({"data": _MISSING, "parameters": {"binary_data_size": declared}})
    return Request(name, "POST", _INFER, text + pixels, {_LENGTH: length or str(len(text))})
