"""Around every call: API key, request id, access log, metrics, and errors as gRPC statuses.

This is the only place where `ServiceError` becomes a gRPC status.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc import StatusCode
from grpc.aio import ServicerContext

from service.api_keys import ApiKeys
from service.errors import ServiceError
from service.oip.grpc.messages import Messages
from service.oip.grpc.responses import Responses
from service.telemetry import log
from service.telemetry.metrics import Metrics

_logger = logging.getLogger(__name__)
_INFERENCE = "/inference.GRPCInferenceService"
_HEALTH = "/grpc.health.v1.Health"
_PROBES = (
    f"{_INFERENCE}/ServerLive",
    f"{_INFERENCE}/ServerReady",
    f"{_HEALTH}/Check",
    f"{_HEALTH}/List",
    f"{_HEALTH}/Watch",
)

# By the HTTP status of an error.
STATUS_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.INVALID_ARGUMENT,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Probes need no API key and are not logged."""

    def __init__(
        self, keys: ApiKeys, metrics: Metrics, messages: Messages, responses: Responses
    ) -> None:
        self._keys = keys
        self._metrics = metrics
        self._messages = messages
        self._responses = responses

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(details)
        if handler is None:
            return None  # no such method: gRPC itself responds
        metadata = dict(details.invocation_metadata)

        async def call(_: Any, context: ServicerContext) -> None:
            await self._observe(handler, details.method, metadata, context)

        # Of a stream, gRPC reads a message only when it is asked to: once the key has been checked
        # and there is room. On the wire, one message and a stream of one are the same.
        return grpc.stream_stream_rpc_method_handler(call)

    async def _observe(
        self,
        handler: grpc.RpcMethodHandler,
        method: str,
        metadata: dict[str, Any],
        context: ServicerContext,
    ) -> None:
        started = time.perf_counter()
        trailing: tuple[tuple[str, str], ...] = (
            ("x-request-id", log.begin_request(str(metadata.get("x-request-id", "")))),
        )
        context.set_trailing_metadata(trailing)
        status, failure = StatusCode.OK, ""
        try:
            if method not in _PROBES:
                self._keys.check(*_given_keys(metadata))
            await self._respond(handler, context)
        except ServiceError as exc:
            status = STATUS_CODES[exc.status]
            self._metrics.reject(exc.code)
            if exc.retry_after_s is not None:
                trailing += (("retry-after", str(exc.retry_after_s)),)
            failure = f"{exc.title}: {exc.detail}"
            # Frames hold the message, and gRPC keeps them in reference cycles.
            traceback.clear_frames(exc.__traceback__)
        except grpc.aio.AbortError:
            status = context.code()
            raise
        except (asyncio.CancelledError, grpc.aio.InternalError):  # the latter: nobody to send to
            status = StatusCode.CANCELLED  # the client cancelled or left, or its deadline passed
            raise asyncio.CancelledError from None
        except Exception as exc:
            _logger.exception("unhandled error")
            status, failure = StatusCode.INTERNAL, "Internal error: see the server's log"
            traceback.clear_frames(exc.__traceback__)
        finally:
            self._metrics.request(method, status.name)
            if method not in _PROBES:
                seconds = time.perf_counter() - started
                log.access(f"gRPC {method}", method, status.name, seconds)
        if failure:  # sent once the call is counted, so that whoever has the answer finds it there
            try:
                await context.abort(status, failure, trailing)
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # the client has left

    async def _respond(self, handler: grpc.RpcMethodHandler, context: ServicerContext) -> None:
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            async with aclosing(self._messages.each(context, parse)) as requests:
                await self._send_all(context, handler.stream_stream(requests, context), serialize)
            return
        async with self._messages.one(context, parse) as request:
            if handler.response_streaming:
                await self._send_all(context, handler.unary_stream(request, context), serialize)
            else:
                content = serialize(await handler.unary_unary(request, context))
                await self._responses.send(context, content)

    async def _send_all(
        self,
        context: ServicerContext,
        responses: AsyncGenerator[Any, None],
        serialize: Callable[[Any], bytes],
    ) -> None:
        async with aclosing(responses):
            async for response in responses:
                content = serialize(response)
                del response  # the client may take long to read what is sent
                await self._responses.send(context, content)


def _given_keys(metadata: dict[str, Any]) -> tuple[str, str]:
    scheme, _, credentials = str(metadata.get("authorization", "")).partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    return bearer, str(metadata.get("x-api-key", ""))
