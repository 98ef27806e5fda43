"""The Open Inference Protocol's inference requests and answers: bytes to tensors and back.

JSON with Triton's binary tensor and classification extensions. Knows nothing of HTTP
frameworks, of models beyond their `Contract`, or of how answers came to be.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from models.preprocess import Pixels
from service.errors import InvalidInference, UploadTooLarge

Array = npt.NDArray[np.float32]

INPUT = "images"
LOGITS = "logits"
INPUT_DATATYPE = "UINT8"
OUTPUT_DATATYPE = "FP32"  # of every output of both graphs

_KINDS = {str: "a string", bool: "a boolean", int: "a whole number", dict: "an object"}
_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = "shared_memory_"
# A value takes "255," on one line and about this in pretty-printed JSON. Objects of a parser
# take many times their text, so no more text is parsed than a fitting request may have.
_JSON_BYTES_PER_VALUE = 16
_JSON_BYTES_BESIDE_VALUES = 64 * 1024
_BYTES_PER_NUMBER = 14  # float32 as text, with its comma


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives."""

    size: int
    max_batch_size: int
    outputs: Mapping[str, tuple[int, ...]]  # shapes without the batch
    labels: tuple[str, ...]

    @property
    def max_json_bytes(self) -> int:
        values = self.max_batch_size * self.size * self.size * 3
        return _JSON_BYTES_BESIDE_VALUES + _JSON_BYTES_PER_VALUE * values


@dataclass(frozen=True)
class RequestedOutput:
    name: str
    binary: bool = False
    classes: int = 0  # as so many strings "value:index:label", best first; 0 for numbers


@dataclass(frozen=True)
class InferRequest:
    id: str | None
    images: Pixels  # [B, S, S, 3]
    outputs: tuple[RequestedOutput, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def answer_bytes(self, contract: Contract) -> int:
        """About how long the answer will be."""
        return len(self.images) * sum(
            math.prod(contract.outputs[output.name]) * (4 if output.binary else _BYTES_PER_NUMBER)
            for output in self.outputs
        )


@dataclass(frozen=True)
class EncodedAnswer:
    body: bytes
    json_length: int | None  # of the JSON before binary tensors; None if there are none


def decode(body: bytes, json_length: str | None, contract: Contract) -> InferRequest:
    """A request; `json_length` is the Inference-Header-Content-Length header.

    Raises `InvalidInference` saying what would fit, or `UploadTooLarge`.
    """
    text, binary = _split(body, json_length)
    if len(text) > contract.max_json_bytes:
        raise UploadTooLarge(
            f"{len(text):,} bytes of JSON, and a request to this model needs at most "
            f"{contract.max_json_bytes:,}; send tensors in binary form"
        )
    message = _object(_parse(text), "the request")
    parameters = _parameters(message, "the request")
    if stateful := parameters.keys() & set(_SEQUENCES):
        raise InvalidInference(f"the model keeps no state: leave out {', '.join(sorted(stateful))}")
    return InferRequest(
        id=_optional(message, "id", str, None, "the request"),
        images=_images(message, binary, contract),
        outputs=_outputs(message, parameters, contract),
    )


def encode(
    request: InferRequest,
    answers: Sequence[Mapping[str, Array]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
) -> EncodedAnswer:
    """The answer to a request, from the outputs of each of its images."""
    outputs, tail = [], []
    for wanted in request.outputs:
        values = np.stack([answer[wanted.name] for answer in answers]).astype("<f4", copy=False)
        output: dict[str, Any] = {"name": wanted.name}
        if wanted.classes:
            texts = [_best(row, wanted.classes, labels) for row in values]
            output |= {"datatype": "BYTES", "shape": [len(texts), len(texts[0])]}
            flat: Any = list(chain.from_iterable(texts))
        else:
            output |= {"datatype": OUTPUT_DATATYPE, "shape": list(values.shape)}
            flat = values.ravel()
        if wanted.binary:
            data = _serialize(flat) if wanted.classes else flat.tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            output["data"] = flat
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


def _images(message: dict[str, Any], binary: memoryview, contract: Contract) -> Pixels:
    tensors = _tensors(message, "inputs")
    if [name for name, _ in tensors] != [INPUT]:
        raise InvalidInference(f"the model takes one input, {INPUT}, once")
    tensor = tensors[0][1]
    if (datatype := tensor.get("datatype")) != INPUT_DATATYPE:
        raise InvalidInference(f"{INPUT}: datatype is {INPUT_DATATYPE}, not {_shown(datatype)}")
    shape = _shape(tensor.get("shape"), contract)
    parameters = _parameters(tensor, INPUT)
    if "binary_data_size" in parameters:
        if "data" in tensor:
            raise InvalidInference(f"{INPUT}: data or binary_data_size, not both")
        return _from_binary(binary, parameters["binary_data_size"], shape)
    if len(binary):
        raise InvalidInference(f"no input claims the {len(binary)} bytes after the JSON")
    return _from_json(tensor.get("data"), shape)


def _shape(shape: Any, contract: Contract) -> tuple[int, ...]:
    size, largest = contract.size, contract.max_batch_size
    fits = (
        isinstance(shape, list)
        and all(type(length) is int for length in shape)
        and shape[1:] == [size, size, 3]
        and 1 <= shape[0] <= largest
    )
    if not fits:
        shown = str(shape)[:80] if isinstance(shape, list) and len(shape) < 9 else _shown(shape)
        raise InvalidInference(
            f"{INPUT}: shape is [B, {size}, {size}, 3] with B from 1 to {largest}, not {shown}"
        )
    return tuple(shape)


def _from_binary(binary: memoryview, declared: Any, shape: tuple[int, ...]) -> Pixels:
    if type(declared) is not int or declared != len(binary):
        raise InvalidInference(
            f"{INPUT}: binary_data_size is {_shown(declared)}, and {len(binary)} bytes follow "
            "the JSON"
        )
    if len(binary) != math.prod(shape):
        raise InvalidInference(
            f"{INPUT}: {len(binary)} bytes, and the shape needs {math.prod(shape)}"
        )
    return np.frombuffer(binary, np.uint8).reshape(shape)


def _from_json(data: Any, shape: tuple[int, ...]) -> Pixels:
    values = _flatten(data, shape)
    if len(values) != math.prod(shape):
        raise InvalidInference(
            f"{INPUT}: {len(values)} values, and the shape needs {math.prod(shape)}"
        )
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


def _outputs(
    message: dict[str, Any], parameters: dict[str, Any], contract: Contract
) -> tuple[RequestedOutput, ...]:
    binary = _optional(parameters, "binary_data_output", bool, False, "the request")
    tensors = _tensors(message, "outputs") if message.get("outputs") is not None else []
    requested = tuple(_output(name, tensor, binary, contract) for name, tensor in tensors)
    return requested or (RequestedOutput(LOGITS, binary),)


def _output(name: str, tensor: dict[str, Any], binary: bool, contract: Contract) -> RequestedOutput:
    if name not in contract.outputs:
        raise InvalidInference(f"the model has no output {_shown(name)}")
    parameters = _parameters(tensor, name)
    classes = _optional(parameters, "classification", int, 0, name)
    if "classification" in parameters and (name != LOGITS or classes < 1):
        raise InvalidInference(f"{name}: classification is a number of classes, on {LOGITS} only")
    return RequestedOutput(
        name=name,
        binary=_optional(parameters, "binary_data", bool, binary, name),
        classes=min(classes, len(contract.labels)),
    )


def _tensors(message: dict[str, Any], field: str) -> list[tuple[str, dict[str, Any]]]:
    """Inputs or outputs with their names, each name once."""
    entries = message.get(field)
    if not isinstance(entries, list):
        raise InvalidInference(f"{field} is missing or not a list")
    named = []
    for entry in entries:
        tensor = _object(entry, f"each of {field}")
        name = tensor.get("name")
        if not isinstance(name, str):
            raise InvalidInference(f"one of {field} has no name")
        named.append((name, tensor))
    if len({name for name, _ in named}) != len(named):
        raise InvalidInference(f"a name stands twice in {field}")
    return named


def _parameters(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Its parameters; those that are not known are allowed to stand there."""
    parameters = _object(_optional(record, "parameters", dict, {}, where), where)
    if any(name.startswith(_SHARED_MEMORY) for name in parameters):
        raise InvalidInference(f"{where}: shared memory is not supported")
    return parameters


def _optional(record: dict[str, Any], name: str, kind: type, default: Any, where: str) -> Any:
    value = record.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise InvalidInference(f"{where}: {name} is {_KINDS[kind]}, not {_shown(value)}")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInference(f"{where} is not an object")
    return value


def _shown(value: Any) -> str:
    """A client's value for a message, however large it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value[:40] if isinstance(value, str) else value)


def _best(logits: Array, count: int, labels: Sequence[str]) -> list[str]:
    best = np.argsort(-logits, kind="stable")[:count]
    return [f"{logits[index]:f}:{index}:{labels[index]}" for index in best]


def _serialize(texts: Sequence[str]) -> bytes:
    """Strings of a BYTES tensor: each one's length, then its bytes."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
