"""Errors as problem documents (RFC 9457), in responses and in OpenAPI.

Under /v2 they have the form that the Open Inference Protocol (OIP) defines for errors.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from service.errors import (
    HeadersTooLarge,
    InvalidRequest,
    MalformedRequest,
    MisdirectedRequest,
    RequestTimeout,
    ServiceError,
    Unauthorized,
    UriTooLong,
)
from service.http.prefix import path_below
from service.http.schemas import Problem
from service.http.specification import reference
from service.oip.schemas import PREFIX, ProtocolError

_logger = logging.getLogger(__name__)

_OF_EVERY_ROUTE: tuple[type[ServiceError], ...] = (
    MalformedRequest,
    RequestTimeout,
    UriTooLong,
    MisdirectedRequest,
    HeadersTooLarge,
    ServiceError,
)
_OF_PROTECTED_ROUTES = (InvalidRequest, Unauthorized)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document."""
    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unknown_error)


async def service_error(request: Request, exc: Exception) -> Response:
    """The response to a `ServiceError`."""
    assert isinstance(exc, ServiceError)
    headers = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return _document(request, exc.status, exc.code, exc.title, exc.detail, headers)


async def _invalid_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    wrong = "; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors())
    return await service_error(request, InvalidRequest(wrong))


async def _http_error(request: Request, exc: Exception) -> Response:
    """Starlette's own errors: unknown paths and methods."""
    assert isinstance(exc, HTTPException)
    code = exc.detail.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}"
    return _document(request, exc.status_code, code, exc.detail, detail, exc.headers)


async def _unknown_error(request: Request, exc: Exception) -> Response:
    _logger.exception("unhandled error", exc_info=exc)
    return await service_error(request, ServiceError("see the log of the server"))


def _document(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None,
) -> Response:
    """A problem document, or OIP's error under /v2."""
    request.state.problem = code
    path = path_below(request.scope)
    if path == PREFIX or path.startswith(f"{PREFIX}/"):
        body = orjson.dumps({"error": f"{title}: {detail}"})
        return Response(body, status, headers=headers, media_type="application/json")
    body = orjson.dumps(
        {
            "type": f"urn:deepvit:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "instance": request.url.path,
            "code": code,
            "request_id": request.state.request_id,
        }
    )
    return Response(body, status, headers=headers, media_type="application/problem+json")


def problems(*errors: type[ServiceError], public: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the errors that a route can answer with.

    A `public` route needs no API key and reads no parameters.
    """
    return _responses("application/problem+json", Problem, _all(errors, public), _example)


def oip_problems(
    *errors: type[ServiceError], public: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The same for routes of the Open Inference Protocol."""
    return _responses("application/json", ProtocolError, _all(errors, public), _oip_example)


def _all(errors: Iterable[type[ServiceError]], public: bool) -> list[type[ServiceError]]:
    return [*errors, *(() if public else _OF_PROTECTED_ROUTES), *_OF_EVERY_ROUTE]


def _example(error: type[ServiceError]) -> dict[str, Any]:
    return {
        "type": f"urn:deepvit:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }


def _oip_example(error: type[ServiceError]) -> dict[str, Any]:
    return {"error": error.title}


def _responses(
    media_type: str,
    model: type[BaseModel],
    errors: list[type[ServiceError]],
    example: Callable[[type[ServiceError]], dict[str, Any]],
) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        response = responses.setdefault(
            error.status,
            {
                "description": "",
                "content": {media_type: {"schema": reference(model), "examples": {}}},
            },
        )
        response["description"] += f"{'; ' if response['description'] else ''}{error.title}"
        examples = response["content"][media_type]["examples"]
        examples[error.code] = {"value": example(error)}
    return responses
