"""What every route needs: the running service, deadlines, and errors for OpenAPI."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from service.errors import (
    ClientGone,
)
from service.inference.batching import Done
from service.runtime import Runtime

T = TypeVar("T")

_PATIENCE = "milliseconds after which no answer is wanted any more"
_PATIENCE_HEADER = "x-request-timeout-ms"
_MILLISECONDS = TypeAdapter(Annotated[int, Field(ge=1)])
# For OpenAPI, where a handler reads it with `deadline`.
DEADLINE_PARAMETER = {
    "name": _PATIENCE_HEADER,
    "in": "header",
    "required": False,
    "description": _PATIENCE,
    "schema": {"type": "integer", "minimum": 1},
}


# Asynchronous though nothing in them waits: FastAPI runs plain functions on another thread.


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


async def _working(runtime: RuntimeDep) -> Runtime:
    """For requests that mean work."""
    runtime.check_working()
    return runtime


async def _deadline(
    request: Request,
    runtime: RuntimeDep,
    _: Annotated[int | None, Header(alias=_PATIENCE_HEADER, ge=1, description=_PATIENCE)] = None,
) -> float:
    return deadline(request, runtime)


def deadline(request: Request, runtime: Runtime) -> float:
    """When the request is late, as a time of `time.perf_counter`.

    Raises `RequestValidationError`.
    """
    asked_s = longest_s = runtime.request_timeout_s
    if _PATIENCE_HEADER in request.headers:
        try:
            asked_s = _MILLISECONDS.validate_python(request.headers[_PATIENCE_HEADER]) / 1000
        except ValidationError as exc:
            raise RequestValidationError(
                [{**error, "loc": ("header", _PATIENCE_HEADER)} for error in exc.errors()]
            ) from exc
    return time.perf_counter() + min(asked_s, longest_s)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises `ClientGone`."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    leaving.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if leaving.done() and not leaving.cancelled():
            raise ClientGone("the client closed the connection") from None
        raise
    finally:
        task.cancel()
        leaving.cancel()


def tell_run(request: Request, done: "Sequence[Done[Any]]") -> None:
    """Where the time of a request went that is prepared elsewhere, by its slowest image."""
    last = max(done, key=lambda one: one.queue_s + one.run_s)
    request.state.timings_s = {"queue": last.queue_s, "inference": last.run_s}
    request.state.ends = {"inference": last.ended}


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # what is left of the body


WorkingDep = Annotated[Runtime, Depends(_working)]
DeadlineDep = Annotated[float, Depends(_deadline)]
ModelName = Annotated[str | None, Query(description="a served model; the default one if left out")]
ModelVersion = Annotated[
    int | None, Query(ge=1, description="a served version; the highest one if left out")
]
