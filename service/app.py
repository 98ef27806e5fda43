"""The HTTP application: runtime from settings, routes, errors to the form of their path."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from service import __version__
from service.errors import InvalidRequest, ServiceError, StartupError, Unauthorized
from service.heads import RefusedHeads
from service.imaging import Decoder
from service.metrics import Metrics
from service.observe import PROBES, Observe
from service.pipeline import Pipeline
from service.repository import ModelRepository, QueueOptions
from service.routes import (
    attention,
    classify,
    explorer,
    health,
    images,
    metrics,
    models,
    similarity,
    v2,
    v2_repository,
)
from service.routes.security import ApiKeys
from service.runtime import Runtime, UploadLimits
from service.sessions import EngineOptions
from service.settings import Settings, traces_wanted
from service.store import Store
from service.store.memory import MemoryStore

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from service.tracing import Tracing

_logger = logging.getLogger(__name__)


def build_runtime(settings: Settings) -> Runtime:
    """Load and warm everything. Raises `StartupError`."""
    store = _store(settings)
    repository = ModelRepository(
        settings.model_repository,
        EngineOptions(
            provider=settings.provider,
            precision=settings.precision,
            attention=settings.attention,
            cuda_graphs=settings.cuda_graphs,
            intra_op_threads=settings.intra_op_threads,
            max_batch_size=settings.max_batch_size,
        ),
        QueueOptions(settings.max_queue_images, settings.max_wait_ms / 1000),
        default_model=settings.default_model,
        versions=settings.served_versions,
    )
    pipeline = Pipeline(
        models=repository,
        store=store,
        decoder=Decoder(settings.max_image_pixels, settings.reduced_decode),
        pool=ThreadPoolExecutor(settings.decode_threads, "decode"),
    )
    return Runtime(
        pipeline=pipeline,
        upload_limits=UploadLimits(
            max_bytes=settings.max_upload_bytes,
            max_images=min(settings.max_request_images, settings.max_queue_images),
            timeout_s=settings.request_timeout_s,
        ),
        max_answer_bytes=settings.max_answer_bytes,
        request_timeout_s=settings.request_timeout_s,
        render_pool=ThreadPoolExecutor(1, "render"),
        metrics=Metrics(repository, store),
    )


def _store(settings: Settings) -> Store:
    if settings.store_url is None:
        return MemoryStore(settings.store_max_bytes, settings.store_ttl_s)
    try:
        from service.store.redis import RedisStore
    except ModuleNotFoundError as exc:
        raise StartupError(
            "store_url needs the package redis: pip install --constraint constraints.txt '.[redis]'"
        ) from exc
    return RedisStore(
        settings.store_url.get_secret_value(),
        timeout_s=settings.store_timeout_s,
        ttl_s=settings.store_ttl_s,
    )


def build_tracing() -> "Tracing | None":
    """What OpenTelemetry's variables ask for. Raises `StartupError`."""
    if not traces_wanted(os.environ):
        return None
    try:
        from service.tracing import Tracing
    except ModuleNotFoundError as exc:
        raise StartupError(
            "OTEL_ variables ask for traces, which need OpenTelemetry's packages: pip install "
            "--constraint constraints.txt '.[otel]', or set OTEL_TRACES_EXPORTER=none"
        ) from exc
    return Tracing()


def create_app(
    runtime: Runtime,
    *,
    tracing: "Tracing | None" = None,
    api_keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    repository_poll_s: float = 0,
    drain_timeout_s: float = 25,
) -> FastAPI:
    """The application around a running service; closing it finishes queued work."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await runtime.pipeline.store.open()
        polling = asyncio.create_task(_poll(runtime.pipeline.models, repository_poll_s))
        yield
        runtime.draining = True
        polling.cancel()
        runtime.pipeline.models.stop(drain_timeout_s)
        runtime.pipeline.pool.shutdown()
        runtime.render_pool.shutdown()
        await runtime.pipeline.store.close()
        if tracing:
            tracing.close()

    app = FastAPIOffline(
        title="DeepViT inference",
        version=__version__,
        description="Classify images with deep vision transformers, and look inside them.",
        lifespan=lifespan,
        dependencies=[Depends(ApiKeys(api_keys))] if api_keys else [],
        telemetry=_telemetry(tracing),
    )
    app.state.runtime = runtime
    for room in (  # tried in this order: what is asked most comes first
        classify,
        v2,
        attention,
        similarity,
        images,
        explorer,
        models,
        health,
        metrics,
        v2_repository,
    ):
        app.include_router(room.router)
    app.mount("/web", explorer.Files(directory=explorer.WEB), name="web")
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unknown_error)
    app.add_middleware(RefusedHeads, answer=_service_error)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Attention-Maps", "X-Request-Id", "Server-Timing", "Retry-After"],
        )
    app.add_middleware(Observe, metrics=runtime.metrics, trace=tracing)
    return app


def _telemetry(tracing: "Tracing | None") -> "TelemetryConfig":
    """FastAPI's own, which is off unless asked for here."""
    if tracing:
        return tracing.config(exclude=lambda scope: scope["path"] in PROBES)
    return {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


async def _poll(models: ModelRepository, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        try:
            await models.poll()
        except Exception:  # the next look may go well
            _logger.exception("looking for new versions failed")


async def _service_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)
    headers = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(request, exc.status, exc.code, exc.title, exc.detail, headers)


async def _invalid_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    wrong = "; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors())
    return await _service_error(request, InvalidRequest(wrong))


async def _http_error(request: Request, exc: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(exc, HTTPException)
    code = exc.detail.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}"
    return _problem(request, exc.status_code, code, exc.detail, detail, exc.headers)


async def _unknown_error(request: Request, exc: Exception) -> Response:
    _logger.exception("unhandled error", exc_info=exc)
    return await _service_error(request, ServiceError("the log of the server says more"))


def _problem(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None,
) -> Response:
    """A problem document (RFC 9457), or what the Open Inference Protocol has in its place."""
    request.state.problem = code
    path = request.url.path
    if path == v2.PREFIX or path.startswith(f"{v2.PREFIX}/"):
        body = orjson.dumps({"error": f"{title}: {detail}"})
        return Response(body, status, headers=headers, media_type="application/json")
    body = orjson.dumps(
        {
            "type": f"urn:deepvit:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "instance": path,
            "code": code,
            "request_id": request.state.request_id,
        }
    )
    return Response(body, status, headers=headers, media_type="application/problem+json")
