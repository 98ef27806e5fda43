"""The parts of the running service, built from its settings, and the HTTP application."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from service import __version__
from service.assembly import decode_options, local_engines, needs_extra
from service.http import problems
from service.http.direct import DirectRoute
from service.http.hosts import CheckHost
from service.http.middleware import (
    PROBES,
    AnswerHead,
    AnswerRefusals,
    ObserveRequests,
    RefuseUnread,
)
from service.http.origins import RefuseOtherOrigins, refuse_other_origins
from service.http.prefix import PutBelowPrefix
from service.http.routes import (
    attention,
    classify,
    explorer,
    health,
    images,
    metrics,
    models,
    monitor,
    similarity,
    v2,
    v2_health,
    v2_repository,
)
from service.http.security import RequireApiKey
from service.http.specification import Specification
from service.imaging.preparer import Preparer
from service.inference.engine import EngineMaker
from service.inference.repository import ModelRepository
from service.inference.served import QueueOptions
from service.limits.heap import Heap
from service.limits.inflight import InflightUploads
from service.monitor.monitor import Monitor
from service.pipeline import Pipeline
from service.runtime import Replicas, Runtime, UploadLimits
from service.settings.server import Settings, traces_wanted
from service.store import Store
from service.store.memory import MemoryStore
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from service.oip.grpc.server import GrpcServer
    from service.telemetry.tracing import Tracing

_logger = logging.getLogger(__name__)
_TRIM_EVERY_S = 5

# What pages of other origins may read of an answer besides its type, length and Cache-Control.
_EXPOSED_HEADERS = (
    "ETag",
    attention.FACTS_HEADER,
    v2.LENGTH_HEADER,
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-Id",
)


def build_runtime(
    settings: Settings,
    make_engine: EngineMaker | None = None,
    replicas: Replicas | None = None,
) -> Runtime:
    """Load and warm up every model. Raises `StartupError`.

    Models run in this process unless `make_engine` makes other engines. `replicas` are told where
    other processes answer at the same address.
    """
    store = _build_store(settings)
    repository = ModelRepository(
        settings.model_repository,
        make_engine or local_engines(settings),
        QueueOptions(settings.max_queue_images, settings.max_wait_ms / 1000),
        default_model=settings.default_model,
        versions=settings.served_versions,
        require_all=settings.require_all_models,
    )
    threads = ThreadPoolExecutor(settings.decode_threads, "decode")
    watching = Monitor(repository, settings.monitor_sample)
    pipeline = Pipeline(
        models=repository,
        store=store,
        preparer=Preparer(decode_options(settings), threads, max(2, settings.decode_threads)),
        pool=threads,
        monitor=watching,
    )
    return Runtime(
        pipeline=pipeline,
        upload_limits=UploadLimits(
            max_bytes=settings.max_upload_bytes,
            max_images=min(settings.max_request_images, settings.max_queue_images),
            timeout_s=settings.request_timeout_s,
        ),
        uploads=InflightUploads(
            max(settings.max_inflight_bytes, settings.max_upload_bytes),
            settings.max_inflight_uploads,
        ),
        max_answer_bytes=settings.max_answer_bytes,
        request_timeout_s=settings.request_timeout_s,
        render_pool=ThreadPoolExecutor(1, "render"),
        metrics=Metrics(repository, store, watching),
        model_control=settings.clients_control_models,
        replicas=replicas,
    )


def _build_store(settings: Settings) -> Store:
    if settings.store_url is None:
        return MemoryStore(settings.store_max_bytes, settings.store_ttl_s)
    with needs_extra("store_url needs the package redis", "redis"):
        from service.store.redis import RedisStore
    return RedisStore(
        settings.store_url.get_secret_value(),
        timeout_s=settings.store_timeout_s,
        ttl_s=settings.store_ttl_s,
    )


def build_tracing() -> "Tracing | None":
    """Traces if OpenTelemetry's environment variables ask for them. Raises `StartupError`."""
    if not traces_wanted(os.environ):
        return None
    need = (
        "OTEL_ variables ask for traces, which need OpenTelemetry's packages "
        "(OTEL_TRACES_EXPORTER=none turns traces off)"
    )
    with needs_extra(need, "otel"):
        from service.telemetry.tracing import Tracing
    return Tracing()


def build_grpc_server(settings: Settings, runtime: Runtime) -> "GrpcServer | None":
    """A gRPC server, not started yet, if its port is set. Raises `StartupError`."""
    if settings.grpc_port is None:
        return None
    with needs_extra("grpc_port needs the package grpcio", "grpc"):
        from service.oip.grpc.server import GrpcServer
    return GrpcServer(
        runtime,
        host=settings.host,
        port=settings.grpc_port,
        max_unsent_bytes=max(settings.max_unsent_bytes, settings.max_answer_bytes),
        api_keys=settings.keys,
    )


def build_app(settings: Settings, runtime: Runtime) -> FastAPI:
    """The HTTP application as the settings say. Raises `StartupError`."""
    return create_app(
        runtime,
        tracing=build_tracing(),
        api_keys=settings.keys,
        allowed_hosts=settings.host_names,
        cors_origins=settings.origins,
        root_path=settings.root_path or "",
        repository_poll_s=settings.repository_poll_s,
        drain_timeout_s=settings.drain_timeout_s,
    )


def create_app(
    runtime: Runtime,
    *,
    tracing: "Tracing | None" = None,
    api_keys: Sequence[str] = (),
    allowed_hosts: Sequence[str] | None = None,
    cors_origins: Sequence[str] = (),
    root_path: str = "",
    repository_poll_s: float = 0,
    drain_timeout_s: float = 25,
) -> FastAPI:
    """The HTTP application for a running service; its shutdown finishes queued work.

    Clients reach it below `root_path`; if that is empty, where a trusted proxy says. They may call
    it any name if there are no `allowed_hosts`, not even an empty list.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await runtime.pipeline.store.open()
        polling = asyncio.create_task(_poll_repository(runtime.pipeline.models, repository_poll_s))
        trimming = asyncio.create_task(_trim_heap())
        yield
        runtime.draining = True
        polling.cancel()
        trimming.cancel()
        runtime.pipeline.monitor.stop()
        runtime.pipeline.preparer.close()
        runtime.pipeline.models.stop(drain_timeout_s)
        runtime.pipeline.pool.shutdown(cancel_futures=True)
        runtime.render_pool.shutdown(cancel_futures=True)
        await runtime.pipeline.store.close()
        if tracing:
            tracing.close()

    app = FastAPIOffline(
        title="DeepViT inference",
        version=__version__,
        description="Classify images with deep vision transformers, and look inside them.",
        lifespan=lifespan,
        telemetry=_telemetry_config(tracing, root_path),
    )
    app.state.runtime = runtime
    needs_key = [Depends(RequireApiKey(api_keys))] if api_keys else []
    # Routes are matched in this order, the most requested ones first.
    if not api_keys:  # which are a dependency
        app.router.routes.insert(0, DirectRoute("/classify", classify.classify, methods=["POST"]))
    for protected in (classify, v2, attention, similarity, images, models, monitor, v2_repository):
        app.include_router(protected.router, dependencies=needs_key)
    app.include_router(
        v2_repository.control, dependencies=needs_key or [Depends(refuse_other_origins)]
    )
    for public in (explorer, health, v2_health, metrics):
        app.include_router(public.router)
    app.mount("/web", explorer.Files(directory=explorer.WEB), name="web")
    problems.add_handlers(app)
    app.openapi = Specification(app)  # type: ignore[method-assign]
    app.add_middleware(AnswerRefusals, answer=problems.service_error)
    if not api_keys:
        app.add_middleware(RefuseOtherOrigins, allowed=cors_origins)
    if allowed_hosts is not None:
        app.add_middleware(CheckHost, names=allowed_hosts)
    app.add_middleware(RefuseUnread, answer=problems.service_error)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(ObserveRequests, metrics=runtime.metrics, trace=tracing)
    app.add_middleware(AnswerHead)
    app.add_middleware(PutBelowPrefix, root_path=root_path)
    return app


def _telemetry_config(tracing: "Tracing | None", root_path: str) -> "TelemetryConfig":
    """FastAPI's own telemetry: a span for each request if traces are wanted, else nothing."""
    off: TelemetryConfig = {"metrics": False, "logs": False, "auto_configure": False}
    if tracing is None:
        return {**off, "tracing": False}
    return {
        **off,
        "tracer_provider": tracing.provider,
        "operation_spans": False,
        # This comes before the middleware that puts paths below their prefix.
        "exclude": lambda scope: (
            scope["path"].removeprefix(root_path or scope.get("root_path", "")) in PROBES
        ),
    }


async def _trim_heap() -> None:
    heap = Heap()
    while True:
        await asyncio.sleep(_TRIM_EVERY_S)
        await asyncio.to_thread(heap.trim)


async def _poll_repository(models: ModelRepository, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        try:
            await models.poll()
        except Exception:  # the next attempt may succeed
            _logger.exception("looking for new model versions failed")
