"""Answers without what varies from run to run: the status, and each field with its type."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: str  # an HTTP status, or the name of a gRPC status code
    fields: dict[str, str]  # by path; of the elements of a list, those of the first one
    binary: bool = False  # whether tensors follow the JSON

    @classmethod
    def of(cls, status: int | str, body: Any, binary: bool = False) -> "Answer":
        return cls(str(status), _fields(body), binary)


def _fields(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, list) and value:
        return _fields(value[0], path)
    if isinstance(value, dict) and value:
        return {
            inner: kind
            for name, of in value.items()
            for inner, kind in _fields(of, f"{path}.{name}" if path else name).items()
        }
    return {} if value is None else {path: _kind(value)}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "nothing"
