"""Inference requests and responses over REST: JSON, optionally followed by Triton's binary tensors.

Knows nothing of HTTP frameworks; `inference` decides what a request may ask for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import orjson

from models.arrays import Float32Array, Pixels
from service.errors import InvalidInference, UploadTooLarge
from service.json_arrays import json_array
from service.oip import inference
from service.oip.inference import INPUT, Contract, InferRequest, check_count, quoted

# A value takes 4 bytes ("255,") on one line and up to this many in pretty-printed JSON. Parsed
# JSON takes many times the memory of its text, so text longer than any valid request is refused.
_JSON_BYTES_PER_VALUE = 16
_JSON_BYTES_BESIDE_VALUES = 64 * 1024


@dataclass(frozen=True)
class EncodedResponse:
    body: bytes
    json_length: int | None  # bytes of JSON before the binary tensors; None if there are none


def decode(body: bytes, json_length: str | None, contract: Contract) -> InferRequest:
    """A request; `json_length` is its Inference-Header-Content-Length header.

    Raises `UploadTooLarge`, or `InvalidInference`, which says what would be valid.
    """
    text, binary = _split(body, json_length)
    if len(text) > (max_bytes := max_json_bytes(contract)):
        raise UploadTooLarge(
            f"{len(text):,} bytes of JSON, and a request to this model needs at most "
            f"{max_bytes:,}; send tensors in binary form"
        )
    return inference.parse_request(_parse(text), contract, partial(_read_values, binary))


def max_json_bytes(contract: Contract) -> int:
    """The most JSON that a valid request can have."""
    values = contract.max_batch_size * contract.size.area * 3
    return _JSON_BYTES_BESIDE_VALUES + _JSON_BYTES_PER_VALUE * values


def encode(
    request: InferRequest,
    results: Sequence[Mapping[str, Float32Array]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
) -> EncodedResponse:
    """The response to a request, from the model's outputs for each of its images."""
    outputs, binary = [], []
    for requested, tensor in inference.output_tensors(request, results, labels):
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if requested.binary:
            data = tensor.tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            values = tensor.values
            output["data"] = values if isinstance(values, list) else json_array(values)
        outputs.append(output)
    message = {"model_name": model, "model_version": str(version), "outputs": outputs}
    if request.id:
        message["id"] = request.id
    text = orjson.dumps(message)
    return EncodedResponse(b"".join([text, *binary]), len(text) if binary else None)


def _split(body: bytes, json_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON and the binary tensors behind it."""
    content = memoryview(body)
    if json_length is None:
        return content, content[len(body) :]
    digits = json_length.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise InvalidInference("Inference-Header-Content-Length is not a number of bytes")
    if int(digits) > len(body):
        raise InvalidInference(
            f"Inference-Header-Content-Length is {int(digits)}, and the body has {len(body)} bytes"
        )
    return content[: int(digits)], content[int(digits) :]


def _parse(text: memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidInference(f"not JSON: {exc.msg} at byte {exc.pos}") from exc


def _read_values(binary: memoryview, tensor: dict[str, Any], shape: tuple[int, ...]) -> Pixels:
    parameters = tensor.get("parameters") or {}
    if "binary_data_size" in parameters:
        if "data" in tensor:
            raise InvalidInference(f"{INPUT}: send data or binary_data_size, not both")
        return _from_binary(binary, parameters["binary_data_size"], shape)
    if len(binary):
        raise InvalidInference(f"no input declares the {len(binary)} bytes after the JSON")
    return _from_json(tensor.get("data"), shape)


def _from_binary(binary: memoryview, declared: Any, shape: tuple[int, ...]) -> Pixels:
    if type(declared) is not int or declared != len(binary):
        raise InvalidInference(
            f"{INPUT}: binary_data_size is {quoted(declared)}, and {len(binary)} bytes follow "
            "the JSON"
        )
    return inference.from_bytes(binary, shape).copy()  # a view would keep the whole body


def _from_json(data: Any, shape: tuple[int, ...]) -> Pixels:
    values = _flatten(data, shape)
    check_count(len(values), shape)
    # Compare exact types: isinstance(True, int) holds in Python.
    if set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise InvalidInference(f"{INPUT}: data must be whole numbers from 0 to 255")
    return np.array(values, np.uint8).reshape(shape)


def _flatten(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """The values in row-major order, from a flat list or from lists nested like the shape."""
    if not isinstance(data, list):
        raise InvalidInference(f"{INPUT}: data is missing or not a list")
    if not data or not isinstance(data[0], list):
        return data
    level = [data]
    for length in shape:
        if any(type(part) is not list or len(part) != length for part in level):
            raise InvalidInference(f"{INPUT}: data must be flat, or nested like the shape")
        level = list(chain.from_iterable(level))
    return level
