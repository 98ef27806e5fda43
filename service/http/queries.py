"""Query parameters as one pydantic model, for the route where microseconds count.

FastAPI solves the parameters and dependencies of a handler one by one and in Python, which takes
longer than everything else on the event loop; pydantic alone reads them all at once.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

Form = TypeVar("Form", bound=BaseModel)


def read_query(request: Request, form: type[Form]) -> Form:
    """What the query says. Raises `RequestValidationError`, as FastAPI does."""
    try:
        return form.model_validate(dict(request.query_params))
    except ValidationError as exc:
        raise RequestValidationError(exc.errors()) from exc


def documented(
    form: type[BaseModel], others: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The same parameters for OpenAPI, which cannot see them, with `others` after them."""
    found = []
    for name, schema in form.model_json_schema()["properties"].items():
        description = schema.pop("description", "")
        found.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": description,
                "schema": schema,
            }
        )
    return [*found, *others]
