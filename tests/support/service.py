"""A service in the test's own process, for what cannot be done to another process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.app import build_runtime, create_app
from service.runtime import Runtime
from service.settings import Settings


@contextmanager
def running_service(repository: Path, **settings: Any) -> Iterator[Runtime]:
    """One thread unless told otherwise: with more, a measurement decides how batches are run.

    With one thread a model runs one batch at a time, as large as the queue allows.
    """
    settings = {"intra_op_threads": 1, **settings}
    runtime = build_runtime(Settings(model_repository=repository, **settings))
    try:
        yield runtime
    finally:
        runtime.pipeline.models.stop()
        runtime.pipeline.pool.shutdown()


def client_of(runtime: Runtime) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")
