"""The running service and its models, for the handlers of requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request

from service.inference.served import ServedModel
from service.runtime import Runtime


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def working_runtime_of(request: Request) -> Runtime:
    """The same for requests that start work. Raises `Stopped` once the server shuts down."""
    runtime = runtime_of(request)
    runtime.check_working()
    return runtime


@contextmanager
def use_model(request: Request, name: str | None, version: int | None) -> Iterator[ServedModel]:
    """A served version that stays loaded until the block ends. Raises `UnknownModel`."""
    with runtime_of(request).pipeline.models.use(name, version) as served:
        request.state.model = served.labels  # for the trace
        yield served


# These are asynchronous because FastAPI runs plain functions on another thread.


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


async def _working_runtime(request: Request) -> Runtime:
    return working_runtime_of(request)


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
WorkingDep = Annotated[Runtime, Depends(_working_runtime)]
