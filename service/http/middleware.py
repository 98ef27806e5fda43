"""Around every request: its id, its line in the log, its counts, headers for safety and timing.

Plain ASGI, so that streaming bodies and disconnects pass through untouched.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.http.protocol import REFUSED
from service.telemetry import log
from service.telemetry.metrics import Metrics

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_CLOSED = "the handler is closed"
PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


class Trace(Protocol):
    """The span around the request under way."""

    @property
    def trace_id(self) -> str | None: ...
    def describe(self, state: MutableMapping[str, Any]) -> None: ...


class Observe:
    """Takes the caller's X-Request-Id or makes one, and sends it back."""

    def __init__(self, app: ASGIApp, metrics: Metrics, trace: Trace | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = log.begin_request(given)
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
                headers = [*message["headers"], (b"x-request-id", request_id.encode()), *_SECURITY]
                if timings := state.get("timings_s"):
                    headers.append((b"server-timing", _server_timing(timings).encode()))
                message["headers"] = headers
                if self._trace:
                    self._trace.describe(state)
            try:
                await send(message)
            except RuntimeError as exc:  # uvloop's, just before uvicorn learns of the disconnect
                if _CLOSED not in str(exc):
                    raise

        try:
            await self._app(scope, receive, send_observed)
        except Exception:  # answered further out
            state["problem"] = ServiceError.code
            raise
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _declared(scope)
        self._metrics.request(route, status)
        for stage, duration in scope["state"].get("timings_s", {}).items():
            self._metrics.stage(stage, duration)
        if code := scope["state"].get("problem"):
            self._metrics.reject(code)
        if scope["path"] not in PROBES:
            log.access(f"{scope['method']} {quote(scope['path'])}", route, status, seconds)


def _server_timing(timings_s: dict[str, float]) -> str:
    return ", ".join(f"{stage};dur={seconds * 1e3:.2f}" for stage, seconds in timings_s.items())


def _declared(scope: Scope) -> str:
    """The path of a route with its parameters' names; a nested router knows only its own part."""
    whole = scope.get("fastapi", {}).get("effective_route_context")
    return getattr(whole or scope.get("route"), "path", "other")


class RefusedRequests:
    """Answers them before anybody looks into them; `answer` makes the answer."""

    def __init__(
        self, app: ASGIApp, answer: Callable[[Request, ServiceError], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if error := scope.get("state", {}).get(REFUSED):
            app = await self._answer(Request(scope), error)
        await app(scope, receive, send)
