"""Calls from a front's batch threads to the engines, which outlive the death of an engine.

Ray's handles belong to the event loop of the replica that holds them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from service.errors import ClientGone, EngineUnavailable
from service.inference.batch import Batch

_LOST = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
_PAUSE_S = 0.1  # before what was lost is asked again


class EngineCalls:
    def __init__(
        self, engines: DeploymentHandle, loop: asyncio.AbstractEventLoop, timeout_s: float
    ) -> None:
        self._engines = engines
        self._loop = loop
        self._timeout_s = timeout_s
        self._methods: dict[str, DeploymentHandle] = {}

    def call(self, method: str, *arguments: Any, batch: Batch[Any]) -> Any:
        """What one engine answers, or another one if that dies; models give the same answer twice.

        The engine is told if all callers of `batch` leave. Raises `EngineUnavailable` after the
        timeout, `ClientGone`, or what the engine raises.
        """
        called = self._retried(partial(self._one, method, arguments))
        future = asyncio.run_coroutine_threadsafe(called, self._loop)
        batch.when_abandoned(future.cancel)
        try:
            return future.result()
        except CancelledError as exc:
            raise ClientGone("every client of a batch has left") from exc

    def every(self, method: str, *arguments: Any) -> list[Any]:
        """What all engines answer. Raises as `call` does."""
        called = self.broadcast(method, *arguments)
        return asyncio.run_coroutine_threadsafe(called, self._loop).result()

    async def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """What all engines answer, from the event loop. Raises as `call` does."""
        answers: list[Any] = await self._retried(partial(self._all, method, arguments))
        return answers

    async def _retried(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await ask()
                    except _LOST:
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError as exc:
            raise EngineUnavailable(
                f"no engine answered within {self._timeout_s:g} s", retry_after_s=1
            ) from exc

    async def _one(self, method: str, arguments: Sequence[Any]) -> Any:
        response = self._method(method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except TaskCancelledError as exc:
            raise asyncio.CancelledError from exc

    def _method(self, name: str) -> DeploymentHandle:
        """Pickle is enough for bytes and names, and faster than what Ray takes for anything."""
        if name not in self._methods:
            self._methods[name] = self._engines.options(
                method_name=name, request_serialization="pickle", response_serialization="pickle"
            )
        return self._methods[name]

    async def _all(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        answers: list[Any] = await self._engines.broadcast(method, *arguments).results_async()
        return answers
