"""ASGI middleware around every request.

It is plain ASGI, so that streamed bodies and disconnects pass through untouched.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AnswersUnread, ServiceError
from service.http.prefix import path_below
from service.http.protocol import REFUSAL
from service.http.unsent import OUTBOX, Outbox, client_address
from service.telemetry import log
from service.telemetry.metrics import Metrics

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_UVLOOP_DISCONNECTED = "the handler is closed"
ASKED_METHOD = "asked_method"  # key in the state of a scope, if the scope says another method
PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


AnswerError = Callable[[Request, ServiceError], Awaitable[Response]]


class Trace(Protocol):
    """The tracing span around the current request."""

    @property
    def trace_id(self) -> str | None: ...
    def describe(self, state: MutableMapping[str, Any]) -> None: ...


class ObserveRequests:
    """Gives each request an id, a log line, its counts in the metrics, and response headers.

    The id is the caller's X-Request-Id or a new one. The headers are the id, Server-Timing and
    those for security.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, trace: Trace | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = log.begin_request(given_id)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if self._trace:
            log.trace_id.set(self._trace.trace_id)
        started = time.perf_counter()
        status = 500

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_added_headers(state)]
                if self._trace:
                    self._trace.describe(state)
            try:
                await send(message)
            except RuntimeError as exc:  # uvloop raises it just before uvicorn sees the disconnect
                if _UVLOOP_DISCONNECTED not in str(exc):
                    raise

        try:
            await self._app(scope, receive, send_observed)
        except Exception:  # Starlette's ServerErrorMiddleware, outside this one, will answer
            state["problem"] = ServiceError.code
            raise
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route_path(scope)
        self._metrics.request(route, status)
        for stage, duration in scope["state"].get("timings_s", {}).items():
            self._metrics.stage(stage, duration)
        if code := scope["state"].get("problem"):
            self._metrics.reject(code)
        path = path_below(scope)
        if path not in PROBES:
            method = scope["state"].get(ASKED_METHOD, scope["method"])
            log.access(f"{method} {quote(path)}", route, status, seconds)


def _added_headers(state: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-request-id", state["request_id"].encode()), *_SECURITY_HEADERS]
    if timings_s := state.get("timings_s"):
        value = ", ".join(f"{stage};dur={spent * 1e3:.2f}" for stage, spent in timings_s.items())
        headers.append((b"server-timing", value.encode()))
    return headers


def _route_path(scope: Scope) -> str:
    """The path as its route declares it, with parameters' names in place of their values."""
    # A route of an included router knows only its own part; FastAPI keeps the whole path here.
    whole = scope.get("fastapi", {}).get("effective_route_context")
    return getattr(whole or scope.get("route"), "path", "other")


class AnswerHead:
    """Answers HEAD as GET (RFC 9110, 9.3.2); the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
            scope.setdefault("state", {})[ASKED_METHOD] = "HEAD"
        await self._app(scope, receive, send)


class AnswerRefusals:
    """Answers requests that the protocol has refused, in place of the application.

    `answer` makes the response to an error.
    """

    def __init__(self, app: ASGIApp, answer: AnswerError) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if error := scope.get("state", {}).get(REFUSAL):
            app = await self._answer(Request(scope), error)
        await app(scope, receive, send)


class RefuseUnread:
    """ASGI middleware: answers that there is no room for become errors.

    `answer` makes the response to an error. Requests of a server without outboxes pass.
    """

    def __init__(self, app: ASGIApp, answer: AnswerError) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox: Outbox | None = scope.get("state", {}).get(OUTBOX)
        if outbox is None:
            await self._app(scope, receive, send)
            return
        refused = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                try:
                    outbox.make_room(client_address(scope), _length(message))
                except AnswersUnread as error:
                    refused = True
                    response = await self._answer(Request(scope), error)
                    await response(scope, receive, send)
            if not refused:
                await send(message)

        try:
            await self._app(scope, receive, send_or_refuse)
        finally:
            outbox.expected = 0  # a request that fails may send nothing by this way


def _length(message: Message) -> int:
    """Content-Length in the headers of a response; what has none is sent piece by piece."""
    return int(dict(message["headers"]).get(b"content-length", 0))
