"""The OpenAPI document: FastAPI's, with components for what routes describe by hand.

FastAPI makes components of models that it validates or answers with. Errors are problem documents,
of a media type of their own, and some bodies are read without FastAPI.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http.schemas import Problem
from service.oip.schemas import InferRequestBody, ProtocolError

_REFERENCE = "#/components/schemas/{model}"
_COMPONENTS: tuple[type[BaseModel], ...] = (InferRequestBody, Problem, ProtocolError)


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A schema that refers to the component of one of these models."""
    assert model in _COMPONENTS
    return {"$ref": _REFERENCE.format(model=model.__name__)}


class Specification:
    """Takes the place of `FastAPI.openapi`; made when it is first asked for, as there."""

    def __init__(self, app: FastAPI) -> None:
        self._of_routes = app.openapi
        self._whole: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._whole is None:
            self._whole = _completed(self._of_routes())
        return self._whole


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    _, made = models_json_schema(
        [(model, "validation") for model in _COMPONENTS], ref_template=_REFERENCE
    )
    components = document["components"]
    components["schemas"] = dict(sorted({**components["schemas"], **made["$defs"]}.items()))
    if "securitySchemes" in components:
        for path in document["paths"].values():
            for operation in path.values():
                operation.setdefault("security", [])  # public, in so many words
    return document
