"""Inference requests and the tensors that answer them, the same for REST and gRPC.

Requests are validated here, once for both. Knows nothing of bytes on the wire, of a model beyond
its `Contract`, or of how outputs are computed.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from models.arrays import Float32Array, Pixels
from models.size import Size
from service.errors import AnswerTooLarge, InvalidInference, UnknownModel
from service.json_arrays import BYTES_PER_NUMBER

INPUT = "images"
LOGITS = "logits"
INPUT_DATATYPE = "UINT8"
OUTPUT_DATATYPE = "FP32"  # of every output of both graphs

_VERSION = re.compile("[1-9][0-9]{0,17}")
_TYPE_NAMES = {str: "a string", bool: "a boolean", int: "a whole number", dict: "an object"}
_SEQUENCE_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY_PREFIX = "shared_memory_"


@dataclass(frozen=True)
class Contract:
    """What a model accepts and returns."""

    size: Size
    max_batch_size: int
    outputs: Mapping[str, tuple[int, ...]]  # shapes without the batch axis
    labels: tuple[str, ...]


@dataclass(frozen=True)
class RequestedOutput:
    name: str
    binary: bool = False
    classes: int = 0  # if not 0, this many strings "value:index:label", best first


@dataclass(frozen=True)
class InferRequest:
    id: str | None
    images: Pixels  # [B, height, width, 3]
    outputs: tuple[RequestedOutput, ...]

    @property
    def explain_outputs(self) -> tuple[str, ...]:
        """The outputs to run the explain graph for; none if logits are all that is requested."""
        names = tuple(output.name for output in self.outputs)
        return () if set(names) == {LOGITS} else names

    def response_bytes(self, contract: Contract) -> int:
        """The approximate length of the response."""
        return len(self.images) * sum(
            math.prod(contract.outputs[output.name]) * (4 if output.binary else BYTES_PER_NUMBER)
            for output in self.outputs
        )

    def check_response_size(self, contract: Contract, max_bytes: int) -> None:
        """To be called before anything is computed. Raises `AnswerTooLarge`."""
        smaller = "ask for fewer images or outputs, or for binary data"
        AnswerTooLarge.check(self.response_bytes(contract), max_bytes, smaller)


@dataclass(frozen=True)
class OutputTensor:
    """One output for all images of a request: numbers, or strings if classes were requested."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Float32Array | list[str]  # flat, in row-major order

    def tobytes(self) -> bytes:
        """The raw tensor: little-endian numbers, or strings that each follow their length."""
        if not isinstance(self.values, list):
            return self.values.tobytes()
        encoded = [text.encode() for text in self.values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def parse_request(
    message: Any,
    contract: Contract,
    read_values: Callable[[dict[str, Any], tuple[int, ...]], Pixels],
    *,
    binary: bool = False,
) -> InferRequest:
    """A request from its fields, named as in the protocol's JSON.

    `read_values` returns the values of an input, given its fields and its validated shape.
    `binary` is the default for outputs that do not choose. Raises `InvalidInference`, which says
    what would be valid.
    """
    message = _object(message, "the request")
    parameters = _parameters(message, "the request")
    if stateful := parameters.keys() & set(_SEQUENCE_PARAMETERS):
        raise InvalidInference(f"the model is stateless: leave out {', '.join(sorted(stateful))}")
    tensors = _tensors(message, "inputs")
    if [name for name, _ in tensors] != [INPUT]:
        raise InvalidInference(f"the model takes one input, {INPUT}")
    tensor = tensors[0][1]
    if (datatype := tensor.get("datatype")) != INPUT_DATATYPE:
        raise InvalidInference(
            f"{INPUT}: datatype must be {INPUT_DATATYPE}, not {quoted(datatype)}"
        )
    shape = _shape(tensor.get("shape"), contract)
    _parameters(tensor, INPUT)
    binary = _optional(parameters, "binary_data_output", bool, binary, "the request")
    return InferRequest(
        id=_optional(message, "id", str, None, "the request"),
        images=read_values(tensor, shape),
        outputs=_requested_outputs(message, binary, contract),
    )


def version_number(model: str, version: str) -> int:
    """Raises `UnknownModel`."""
    if not _VERSION.fullmatch(version):
        raise UnknownModel(f"no version {version[:40]!r} of {model}: versions are numbers")
    return int(version)


def from_bytes(content: bytes | memoryview, shape: tuple[int, ...]) -> Pixels:
    """Raises `InvalidInference` unless the number of bytes fits the shape."""
    check_count(len(content), shape, "bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)


def check_count(count: int, shape: tuple[int, ...], unit: str = "values") -> None:
    """Raises `InvalidInference` unless the shape has `count` elements."""
    if count != math.prod(shape):
        raise InvalidInference(f"{INPUT}: {count} {unit}, and the shape needs {math.prod(shape)}")


def output_tensors(
    request: InferRequest, results: Sequence[Mapping[str, Float32Array]], labels: Sequence[str]
) -> Iterator[tuple[RequestedOutput, OutputTensor]]:
    """Each requested output with its tensor, from the model's outputs for each image."""
    for requested in request.outputs:
        values = np.stack([outputs[requested.name] for outputs in results])
        values = values.astype("<f4", copy=False)
        if requested.classes:
            texts = [_best_classes(logits, requested.classes, labels) for logits in values]
            shape = len(texts), len(texts[0])
            yield requested, OutputTensor(requested.name, "BYTES", shape, list(chain(*texts)))
        else:
            yield (
                requested,
                OutputTensor(requested.name, OUTPUT_DATATYPE, values.shape, values.ravel()),
            )


def quoted(value: Any) -> str:
    """A client's value as an error message shows it: short, however large the value is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value[:40] if isinstance(value, str) else value)


def _shape(shape: Any, contract: Contract) -> tuple[int, ...]:
    size, max_batch_size = contract.size, contract.max_batch_size
    valid = (
        isinstance(shape, list)
        and all(type(length) is int for length in shape)
        and shape[1:] == [*size, 3]
        and 1 <= shape[0] <= max_batch_size
    )
    if not valid:
        given = str(shape)[:80] if isinstance(shape, list) and len(shape) < 9 else quoted(shape)
        raise InvalidInference(
            f"{INPUT}: shape must be [B, {size.height}, {size.width}, 3] with B from 1 to "
            f"{max_batch_size}, not {given}"
        )
    return tuple(shape)


def _requested_outputs(
    message: dict[str, Any], binary: bool, contract: Contract
) -> tuple[RequestedOutput, ...]:
    tensors = _tensors(message, "outputs") if message.get("outputs") is not None else []
    outputs = tuple(_requested_output(name, tensor, binary, contract) for name, tensor in tensors)
    return outputs or (RequestedOutput(LOGITS, binary),)


def _requested_output(
    name: str, tensor: dict[str, Any], binary: bool, contract: Contract
) -> RequestedOutput:
    if name not in contract.outputs:
        raise InvalidInference(f"the model has no output {quoted(name)}")
    parameters = _parameters(tensor, name)
    classes = _optional(parameters, "classification", int, 0, name)
    if "classification" in parameters and (name != LOGITS or classes < 1):
        raise InvalidInference(
            f"{name}: classification must be a number of classes, and is for {LOGITS} only"
        )
    return RequestedOutput(
        name=name,
        binary=_optional(parameters, "binary_data", bool, binary, name),
        classes=min(classes, len(contract.labels)),
    )


def _tensors(message: dict[str, Any], field: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of `inputs` or `outputs` with their names, which must be unique."""
    entries = message.get(field)
    if not isinstance(entries, list):
        raise InvalidInference(f"{field} is missing or not a list")
    tensors = []
    for entry in entries:
        tensor = _object(entry, f"each of {field}")
        name = tensor.get("name")
        if not isinstance(name, str):
            raise InvalidInference(f"one of {field} has no name")
        tensors.append((name, tensor))
    if len({name for name, _ in tensors}) != len(tensors):
        raise InvalidInference(f"a name appears twice in {field}")
    return tensors


def _parameters(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a record; unknown ones are ignored."""
    parameters = _object(_optional(record, "parameters", dict, {}, where), where)
    if any(name.startswith(_SHARED_MEMORY_PREFIX) for name in parameters):
        raise InvalidInference(f"{where}: shared memory is not supported")
    return parameters


def _optional(record: dict[str, Any], name: str, expected: type, default: Any, where: str) -> Any:
    value = record.get(name)
    if value is None:
        return default
    if type(value) is not expected:
        raise InvalidInference(
            f"{where}: {name} must be {_TYPE_NAMES[expected]}, not {quoted(value)}"
        )
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInference(f"{where} is not an object")
    return value


def _best_classes(logits: Float32Array, count: int, labels: Sequence[str]) -> list[str]:
    best = np.argsort(-logits, kind="stable")[:count]
    return [f"{logits[index]:f}:{index}:{labels[index]}" for index in best]
