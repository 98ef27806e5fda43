"""The deployment of fronts: the whole HTTP application; models run on engines or in itself."""

import asyncio
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import build_app, build_runtime
from service.cluster.calls import EngineCalls
from service.cluster.remote_engine import RemoteEngine
from service.cluster.replica import replica_name
from service.cluster.settings import ClusterSettings
from service.inference.engine import EngineMaker
from service.monitor.record import Records, added
from service.telemetry import log
from service.telemetry.metrics import merged

_TIMEOUT_S = 30  # for every front to do what one was asked


class Front:
    """One front; Ray Serve starts as many as the settings say, behind one address."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, settings: ClusterSettings, engines: DeploymentHandle | None = None
    ) -> None:
        """Models run in this process if there are no `engines`. Raises `StartupError`."""
        log.configure(settings.log_format)
        self._settings = settings
        loop = asyncio.get_running_loop()
        calls = EngineCalls(engines, loop, settings.request_timeout_s) if engines else None
        make_engine: EngineMaker | None = None
        if calls:
            make_engine = partial(RemoteEngine, calls=calls, in_flight=settings.batches_in_flight)
        self._runtime = await asyncio.to_thread(
            build_runtime, settings, make_engine, _Replicas(calls)
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve."""
        app = build_app(self._settings, self._runtime)
        app.add_middleware(_WithoutRequestId)
        return app

    async def load_here(self, model: str) -> None:
        await self._runtime.pipeline.models.load(model)

    async def unload_here(self, model: str) -> None:
        await self._runtime.pipeline.models.unload(model)

    async def metrics(self) -> tuple[str, bytes]:
        """The name of this process, and the text of a scrape."""
        return replica_name(), self._runtime.metrics.render()

    async def records(self) -> Records:
        """What the monitor of this process has found."""
        return self._runtime.pipeline.monitor.records()

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a front of which a thread has died."""
        if not self._runtime.alive:
            raise RuntimeError("a batch thread is dead")


class _WithoutRequestId:
    """Leaves out X-Request-Id, which Ray Serve adds to each answer, with the same value."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_rest(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, send_rest)


class _Replicas:
    """All fronts and engines, asked from one of the fronts."""

    def __init__(self, engines: EngineCalls | None) -> None:
        self._engines = engines

    async def load(self, model: str) -> None:
        await self._fronts("load_here", model)

    async def unload(self, model: str) -> None:
        await self._fronts("unload_here", model)
        if self._engines:
            await self._engines.broadcast("forget", model)

    async def metrics(self) -> bytes:
        scrapes: list[tuple[str, bytes]] = await self._fronts("metrics")
        if self._engines:
            scrapes += await self._engines.broadcast("metrics")
        return merged(scrapes)

    async def records(self) -> Records:
        return added(await self._fronts("records"))

    async def _fronts(self, method: str, *arguments: Any) -> list[Any]:
        context = serve.get_replica_context()
        fronts = serve.get_deployment_handle(context.deployment, context.app_name)
        answers: list[Any] = await fronts.broadcast(method, *arguments).results_async(
            timeout_s=_TIMEOUT_S
        )
        return answers
