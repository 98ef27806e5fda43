"""Requests and answers as they travel over HTTP: JSON, with Triton's binary tensors behind it.

Knows nothing of HTTP frameworks, and leaves what a request may ask for to `inference`.
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
from service.oip import inference
from service.oip.inference import INPUT, Contract, InferRequest, check_count, shown

# A value takes "255," on one line and about this in pretty-printed JSON. Objects of a parser
# take many times their text, so no more text is parsed than a fitting request may have.
_JSON_BYTES_PER_VALUE = 16
_JSON_BYTES_BESIDE_VALUES = 64 * 1024


@dataclass(frozen=True)
class EncodedAnswer:
    body: bytes
    json_length: int | None  # of the JSON before binary tensors; None if there are none


def decode(body: bytes, json_length: str | None, contract: Contract) -> InferRequest:
    """A request; `json_length` is the Inference-Header-Content-Length header.

    Raises `InvalidInference` saying what would fit, or `UploadTooLarge`.
    """
    text, binary = _split(body, json_length)
    if len(text) > (most := max_json_bytes(contract)):
        raise UploadTooLarge(
            f"{len(text):,} bytes of JSON, and a request to this model needs at most "
            f"{most:,}; send tensors in binary form"
        )
    return inference.read(_parse(text), contract, partial(_values, binary))


def max_json_bytes(contract: Contract) -> int:
    """No fitting request has more JSON."""
    values = contract.max_batch_size * contract.size * contract.size * 3
    return _JSON_BYTES_BESIDE_VALUES + _JSON_BYTES_PER_VALUE * values


def encode(
    request: InferRequest,
    answers: Sequence[Mapping[str, Float32Array]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
) -> EncodedAnswer:
    """The answer to a request, from the outputs of each of its images."""
    outputs, tail = [], []
    for wanted, tensor in inference.answer(request, answers, labels):
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if wanted.binary:
            data = tensor.tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            output["data"] = tensor.values
        outputs.append(output)
    message = {"model_name": model, "model_version": str(version), "outputs": outputs}
    if request.id is not None:
        message["id"] = request.id
    text = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    return EncodedAnswer(b"".join([text, *tail]), len(text) if tail else None)


def _split(body: bytes, json_length: str | None) -> tuple[memoryview, memoryview]:
    whole = memoryview(body)
    if json_length is None:
        return whole, whole[len(body) :]
    digits = json_length.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise InvalidInference("Inference-Header-Content-Length is not a number of bytes")
    if int(digits) > len(body):
        raise InvalidInference(
            f"Inference-Header-Content-Length is {int(digits)}, and the body has {len(body)} bytes"
        )
    return whole[: int(digits)], whole[int(digits) :]


def _parse(text: memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidInference(f"not JSON: {exc.msg} at byte {exc.pos}") from exc


def _values(binary: memoryview, tensor: dict[str, Any], shape: tuple[int, ...]) -> Pixels:
    parameters = tensor.get("parameters") or {}
    if "binary_data_size" in parameters:
        if "data" in tensor:
            raise InvalidInference(f"{INPUT}: data or binary_data_size, not both")
        return _from_binary(binary, parameters["binary_data_size"], shape)
    if len(binary):
        raise InvalidInference(f"no input claims the {len(binary)} bytes after the JSON")
    return _from_json(tensor.get("data"), shape)


def _from_binary(binary: memoryview, declared: Any, shape: tuple[int, ...]) -> Pixels:
    if type(declared) is not int or declared != len(binary):
        raise InvalidInference(
            f"{INPUT}: binary_data_size is {shown(declared)}, and {len(binary)} bytes follow "
            "the JSON"
        )
    return inference.from_bytes(binary, shape)


def _from_json(data: Any, shape: tuple[int, ...]) -> Pixels:
    values = _flatten(data, shape)
    check_count(len(values), shape)
    # The exact type: to Python, true is a number.
    if set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise InvalidInference(f"{INPUT}: data are whole numbers from 0 to 255")
    return np.array(values, np.uint8).reshape(shape)


def _flatten(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Values row by row, from a flat list or from lists nested as the shape says."""
    if not isinstance(data, list):
        raise InvalidInference(f"{INPUT}: data is missing or not a list")
    if not data or not isinstance(data[0], list):
        return data
    level = [data]
    for length in shape:
        if any(type(part) is not list or len(part) != length for part in level):
            raise InvalidInference(f"{INPUT}: data is neither flat nor nested as the shape says")
        level = list(chain.from_iterable(level))
    return level
