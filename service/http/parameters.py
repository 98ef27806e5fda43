"""The parameters of requests: one pydantic model for each endpoint, validated all at once.

FastAPI validates the parameters in a handler's signature one by one and in Python, which takes
longer than everything else that /classify does on the event loop. Handlers therefore call
`read_parameters`, and `documented` shows the same model to OpenAPI.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from models.stages import Stage

_TIMEOUT_HEADER: Final = "x-request-timeout-ms"
_LONGEST_TIMEOUT_MS = 10**9
_MOST_TOLD = 8  # parameters that are refused by name; an address has room for thousands

ModelName = Annotated[str | None, Field(description="a served model; the default one if left out")]
ModelVersion = Annotated[
    int | None, Field(ge=1, description="a served version; the highest one if left out")
]
StageName = Annotated[
    Stage,
    Field(
        description="maps before heads are mixed (softmax), or those that multiply V (reattention)"
    ),
]
Threshold = Annotated[
    float, Field(gt=-1, lt=1, description="a block is similar above this mean cosine")
]


class DeadlineParameters(BaseModel):
    """The parameter that every endpoint takes that runs a model."""

    model_config = ConfigDict(frozen=True)  # requests may share them

    timeout_ms: int | None = Field(
        None,
        alias=_TIMEOUT_HEADER,
        ge=1,
        description="milliseconds that the client waits; at most as many as the service allows",
    )

    @property
    def timeout_s(self) -> float | None:
        if self.timeout_ms is None:
            return None
        return min(self.timeout_ms, _LONGEST_TIMEOUT_MS) / 1000  # no float has hundreds of digits


Parameters = TypeVar("Parameters", bound=BaseModel)


def read_parameters(request: Request, form: type[Parameters]) -> Parameters:
    """The parameters of a request. Raises `RequestValidationError`, as FastAPI does.

    A parameter that the form does not have, or that is given twice, is refused rather than ignored.
    """
    timeout = request.headers.get(_TIMEOUT_HEADER)
    try:
        if timeout is None and not request.scope["query_string"]:
            defaults: Parameters = _defaults(form)
            return defaults
        names = _query_names(form)
        if names and (wrong := list(islice(_unreadable(request.query_params, names), _MOST_TOLD))):
            raise RequestValidationError(wrong)
        return form.model_validate({**request.query_params, _TIMEOUT_HEADER: timeout})
    except ValidationError as exc:
        raise RequestValidationError(exc.errors()) from exc


@cache
def _defaults(form: type[Parameters]) -> Parameters:
    """What a request means that has no parameters, as most. Raises `ValidationError`."""
    return form.model_validate({_TIMEOUT_HEADER: None})


@cache
def _query_names(form: type[BaseModel]) -> frozenset[str]:
    names = {field.alias or name for name, field in form.model_fields.items()}
    return frozenset(names - {_TIMEOUT_HEADER})


def _unreadable(query: QueryParams, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Errors in the form of pydantic's."""
    for name in dict.fromkeys(query):
        if name not in names:
            near = get_close_matches(name, sorted(names), n=1)
            said = f"no such parameter; did you mean {near[0]}?" if near else "no such parameter"
            yield {"type": "extra_forbidden", "loc": (name,), "msg": said, "input": query[name]}
        elif len(query.getlist(name)) > 1:
            said = "given more than once"
            yield {"type": "repeated", "loc": (name,), "msg": said, "input": query[name]}


def documented(form: type[BaseModel]) -> dict[str, Any]:
    """The parameters that `form` reads, as `openapi_extra` of a route; the header comes last."""
    schema = form.model_json_schema()
    parameters = [
        {
            "name": name,
            "in": "header" if name == _TIMEOUT_HEADER else "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description"),
            "schema": _without_null(field),
        }
        for name, field in schema["properties"].items()
    ]
    return {"parameters": sorted(parameters, key=lambda one: one["in"], reverse=True)}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What a parameter may be where it is sent: it can be left out, but text is never null."""
    kept: list[dict[str, Any]]
    kept = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kept) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return rest | kept[0]
