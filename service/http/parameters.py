"""The parameters of requests: one pydantic model for each endpoint, validated all at once.

FastAPI validates the parameters in a handler's signature one by one and in Python, which takes
longer than everything else that /classify does on the event loop. Handlers therefore call
`read_parameters`, and `documented` shows the same model to OpenAPI.
"""

from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from models.manifest import Stage

_TIMEOUT_HEADER: Final = "x-request-timeout-ms"

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

    timeout_ms: int | None = Field(
        None,
        alias=_TIMEOUT_HEADER,
        ge=1,
        description="milliseconds that the client waits; at most as many as the service allows",
    )

    @property
    def timeout_s(self) -> float | None:
        return None if self.timeout_ms is None else self.timeout_ms / 1000


Parameters = TypeVar("Parameters", bound=BaseModel)


def read_parameters(request: Request, form: type[Parameters]) -> Parameters:
    """The parameters of a request. Raises `RequestValidationError`, as FastAPI does."""
    given = {**request.query_params, _TIMEOUT_HEADER: request.headers.get(_TIMEOUT_HEADER)}
    try:
        return form.model_validate(given)
    except ValidationError as exc:
        raise RequestValidationError(exc.errors()) from exc


def documented(form: type[BaseModel]) -> dict[str, Any]:
    """The parameters that `form` reads, as `openapi_extra` of a route; the header comes last."""
    schema = form.model_json_schema()
    parameters = [
        {
            "name": name,
            "in": "header" if name == _TIMEOUT_HEADER else "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description"),
            "schema": field,
        }
        for name, field in schema["properties"].items()
    ]
    return {"parameters": sorted(parameters, key=lambda one: one["in"], reverse=True)}
