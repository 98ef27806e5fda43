"""The HTTP application: runtime from settings, routes, errors to the form of their path."""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine import EngineOptions
from service.errors import InvalidRequest, ServiceError
from service.imaging import Decoder
from service.pipeline import Pipeline
from service.repository import ModelRepository
from service.routes import attention, classify, health, models, similarity, v2, v2_repository
from service.routes.dependencies import Runtime
from service.routes.uploads import UploadLimits
from service.settings import Settings
from service.store import MemoryStore

_logger = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def build_runtime(settings: Settings) -> Runtime:
    """Load and warm everything. Raises `StartupError`."""
    repository = ModelRepository(
        settings.model_repository,
        EngineOptions(
            provider=settings.provider,
            intra_op_threads=settings.intra_op_threads,
            max_batch_size=settings.max_batch_size,
        ),
        max_queue_images=settings.max_queue_images,
        default_model=settings.default_model,
    )
    pipeline = Pipeline(
        models=repository,
        store=MemoryStore(settings.store_max_bytes, settings.store_ttl_s),
        decoder=Decoder(settings.max_image_pixels),
        pool=ThreadPoolExecutor(settings.decode_threads, "decode"),
    )
    return Runtime(
        pipeline=pipeline,
        upload_limits=UploadLimits(
            max_bytes=settings.max_upload_bytes,
            max_images=min(settings.max_request_images, settings.max_queue_images),
        ),
        max_answer_bytes=settings.max_answer_bytes,
        render_pool=ThreadPoolExecutor(1, "render"),
    )


def create_app(runtime: Runtime) -> FastAPI:
    """The application around a running service; closing it finishes queued work."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        runtime.draining = True
        runtime.pipeline.models.stop()
        runtime.pipeline.pool.shutdown()
        runtime.render_pool.shutdown()

    app = FastAPIOffline(
        title="DeepViT inference",
        description="Classify images with deep vision transformers, and look inside them.",
        lifespan=lifespan,
    )
    app.state.runtime = runtime
    for room in (classify, attention, similarity, models, health, v2, v2_repository):
        app.include_router(room.router)
    app.add_api_route("/", _root, include_in_schema=False)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unknown_error)
    app.add_middleware(_RequestId)
    return app


async def _root() -> Response:
    return RedirectResponse("/docs")


async def _service_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)
    headers = {} if exc.retry_after_s is None else {"Retry-After": str(exc.retry_after_s)}
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


class _RequestId:
    """Takes the caller's X-Request-Id or makes one, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
