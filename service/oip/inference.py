"""What an inference request may hold and what its answer does, in whichever form they travel.

Requests are checked here, once for every form. Knows nothing of bytes on the wire, of models
beyond their `Contract`, or of how answers came to be.
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
from service.errors import AnswerTooLarge, InvalidInference, UnknownModel

INPUT = "images"
LOGITS = "logits"
INPUT_DATATYPE = "UINT8"
OUTPUT_DATATYPE = "FP32"  # of every output of both graphs

_VERSION = re.compile("[1-9][0-9]{0,17}")
_KINDS = {str: "a string", bool: "a boolean", int: "a whole number", dict: "an object"}
_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = "shared_memory_"
_BYTES_PER_NUMBER = 14  # float32 as text, with its comma


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives."""

    size: int
    max_batch_size: int
    outputs: Mapping[str, tuple[int, ...]]  # shapes without the batch
    labels: tuple[str, ...]


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
    def explained(self) -> tuple[str, ...]:
        """What the explain graph is asked for; nothing where the classifier gives it all."""
        names = tuple(output.name for output in self.outputs)
        return () if set(names) == {LOGITS} else names

    def answer_bytes(self, contract: Contract) -> int:
        """About how long the answer will be."""
        return len(self.images) * sum(
            math.prod(contract.outputs[output.name]) * (4 if output.binary else _BYTES_PER_NUMBER)
            for output in self.outputs
        )

    def check_answer(self, contract: Contract, max_bytes: int) -> None:
        """Raises `AnswerTooLarge` before anything is computed."""
        if (length := self.answer_bytes(contract)) > max_bytes:
            raise AnswerTooLarge(
                f"about {length:,} bytes, and at most {max_bytes:,} are sent; ask for fewer images "
                "or outputs, or for binary data"
            )


@dataclass(frozen=True)
class AnswerTensor:
    """One output of all images of a request: numbers, or strings where classes are wanted."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Float32Array | list[str]  # row by row

    def tobytes(self) -> bytes:
        """As a raw tensor: little-endian; of each string its length, then its bytes."""
        if not isinstance(self.values, list):
            return self.values.tobytes()
        encoded = [text.encode() for text in self.values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def read(
    message: Any,
    contract: Contract,
    values: Callable[[dict[str, Any], tuple[int, ...]], Pixels],
    *,
    binary: bool = False,
) -> InferRequest:
    """A request from its fields as the protocol's JSON names them.

    `values` gives those of an input, from its fields and the shape that it must have; outputs
    are `binary` unless they say otherwise. Raises `InvalidInference` saying what would fit.
    """
    message = _object(message, "the request")
    parameters = _parameters(message, "the request")
    if stateful := parameters.keys() & set(_SEQUENCES):
        raise InvalidInference(f"the model keeps no state: leave out {', '.join(sorted(stateful))}")
    tensors = _tensors(message, "inputs")
    if [name for name, _ in tensors] != [INPUT]:
        raise InvalidInference(f"the model takes one input, {INPUT}, once")
    tensor = tensors[0][1]
    if (datatype := tensor.get("datatype")) != INPUT_DATATYPE:
        raise InvalidInference(f"{INPUT}: datatype is {INPUT_DATATYPE}, not {shown(datatype)}")
    shape = _shape(tensor.get("shape"), contract)
    _parameters(tensor, INPUT)
    binary = _optional(parameters, "binary_data_output", bool, binary, "the request")
    return InferRequest(
        id=_optional(message, "id", str, None, "the request"),
        images=values(tensor, shape),
        outputs=_outputs(message, binary, contract),
    )


def version_number(model: str, version: str) -> int:
    """Raises `UnknownModel`."""
    if not _VERSION.fullmatch(version):
        raise UnknownModel(f"no version {version[:40]!r} of {model}: versions are numbers")
    return int(version)


def from_bytes(content: bytes | memoryview, shape: tuple[int, ...]) -> Pixels:
    """Raises `InvalidInference` unless there are as many bytes as the shape needs."""
    check_count(len(content), shape, "bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)


def check_count(count: int, shape: tuple[int, ...], what: str = "values") -> None:
    """Raises `InvalidInference`."""
    if count != math.prod(shape):
        raise InvalidInference(f"{INPUT}: {count} {what}, and the shape needs {math.prod(shape)}")


def answer(
    request: InferRequest, answers: Sequence[Mapping[str, Float32Array]], labels: Sequence[str]
) -> Iterator[tuple[RequestedOutput, AnswerTensor]]:
    """What a request asked for, from the outputs of each of its images."""
    for wanted in request.outputs:
        values = np.stack([one[wanted.name] for one in answers]).astype("<f4", copy=False)
        if wanted.classes:
            texts = [_best(row, wanted.classes, labels) for row in values]
            shape = len(texts), len(texts[0])
            yield wanted, AnswerTensor(wanted.name, "BYTES", shape, list(chain(*texts)))
        else:
            yield wanted, AnswerTensor(wanted.name, OUTPUT_DATATYPE, values.shape, values.ravel())


def _shape(shape: Any, contract: Contract) -> tuple[int, ...]:
    size, largest = contract.size, contract.max_batch_size
    fits = (
        isinstance(shape, list)
        and all(type(length) is int for length in shape)
        and shape[1:] == [size, size, 3]
        and 1 <= shape[0] <= largest
    )
    if not fits:
        given = str(shape)[:80] if isinstance(shape, list) and len(shape) < 9 else shown(shape)
        raise InvalidInference(
            f"{INPUT}: shape is [B, {size}, {size}, 3] with B from 1 to {largest}, not {given}"
        )
    return tuple(shape)


def _outputs(
    message: dict[str, Any], binary: bool, contract: Contract
) -> tuple[RequestedOutput, ...]:
    tensors = _tensors(message, "outputs") if message.get("outputs") is not None else []
    requested = tuple(_output(name, tensor, binary, contract) for name, tensor in tensors)
    return requested or (RequestedOutput(LOGITS, binary),)


def _output(name: str, tensor: dict[str, Any], binary: bool, contract: Contract) -> RequestedOutput:
    if name not in contract.outputs:
        raise InvalidInference(f"the model has no output {shown(name)}")
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
        raise InvalidInference(f"{where}: {name} is {_KINDS[kind]}, not {shown(value)}")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInference(f"{where} is not an object")
    return value


def shown(value: Any) -> str:
    """A client's value for a message, however large it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value[:40] if isinstance(value, str) else value)


def _best(logits: Float32Array, count: int, labels: Sequence[str]) -> list[str]:
    best = np.argsort(-logits, kind="stable")[:count]
    return [f"{logits[index]:f}:{index}:{labels[index]}" for index in best]
