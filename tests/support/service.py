"""A service in the test's own process, for what cannot be done to another process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.app import build_runtime, create_app
from service.runtime import Runtime
from service.settings.server import Settings


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
        runtime.pipeline.monitor.stop()
        runtime.pipeline.preparer.close()
        runtime.pipeline.models.stop()
        runtime.pipeline.pool.shutdown()


def client_of(runtime: Runtime) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@contextmanager
def held(running: Runtime) -> Iterator[Any]:
    """Makes the classifier of the default model wait until the block ends."""
    model = running.pipeline.models.get(None)
    released = threading.Event()
    run = model.classifier._run

    def wait(images: Any, key: Any) -> Any:
        assert released.wait(60)
        return run(images, key)

    model.classifier._run = wait
    try:
        yield model
    finally:
        released.set()


async def accepted(model: Any, images: int) -> None:
    """Wait until the classifier has taken so many images."""
    async with asyncio.timeout(60):
        while model.classifier.counts.accepted < images:
            await asyncio.sleep(0.01)
