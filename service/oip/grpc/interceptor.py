"""Around every call: API key, request id, access log, metrics, and errors as gRPC statuses.

This is the only place where `ServiceError` becomes a gRPC status.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode
from grpc.aio import ServicerContext

from service.api_keys import ApiKeys
from service.errors import MalformedUpload, ServiceError
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

    def __init__(self, keys: ApiKeys, metrics: Metrics) -> None:
        self._keys = keys
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(details)
        if handler is None:
            return None  # no such method: gRPC itself responds
        metadata = dict(details.invocation_metadata)
        parse = partial(_parse, handler.request_deserializer)
        observed = partial(self._observed, details.method, metadata)

        async def unary(content: bytes, context: ServicerContext) -> Any:
            async with observed(context):
                return await handler.unary_unary(parse(content), context)

        async def response_stream(content: bytes, context: ServicerContext) -> AsyncIterator[Any]:
            async with observed(context):
                async for response in handler.unary_stream(parse(content), context):
                    yield response

        async def bidirectional(
            contents: AsyncIterator[bytes], context: ServicerContext
        ) -> AsyncIterator[Any]:
            async with observed(context):
                requests = (parse(content) async for content in contents)
                async for response in handler.stream_stream(requests, context):
                    yield response

        serializer = {"response_serializer": handler.response_serializer}
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(bidirectional, **serializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(response_stream, **serializer)
        return grpc.unary_unary_rpc_method_handler(unary, **serializer)

    @asynccontextmanager
    async def _observed(
        self, method: str, metadata: dict[str, Any], context: ServicerContext
    ) -> AsyncIterator[None]:
        started = time.perf_counter()
        trailing: tuple[tuple[str, str], ...] = (
            ("x-request-id", log.begin_request(str(metadata.get("x-request-id", "")))),
        )
        context.set_trailing_metadata(trailing)
        status, failure = StatusCode.OK, ""
        try:
            if method not in _PROBES:
                self._keys.check(*_given_keys(metadata))
            yield
        except ServiceError as exc:
            status = STATUS_CODES[exc.status]
            self._metrics.reject(exc.code)
            if exc.retry_after_s is not None:
                trailing += (("retry-after", str(exc.retry_after_s)),)
            failure = f"{exc.title}: {exc.detail}"
        except grpc.aio.AbortError:
            status = context.code()
            raise
        except asyncio.CancelledError:  # the client cancelled, or its deadline has passed
            status = StatusCode.CANCELLED
            raise
        except Exception:
            _logger.exception("unhandled error")
            status, failure = StatusCode.INTERNAL, "Internal error: see the server's log"
        finally:
            self._metrics.request(method, status.name)
            if method not in _PROBES:
                seconds = time.perf_counter() - started
                log.access(f"gRPC {method}", method, status.name, seconds)
        if failure:  # sent once the call is counted, so that whoever has the answer finds it there
            await context.abort(status, failure, trailing)


def _parse(deserialize: Callable[[bytes], Any], content: bytes) -> Any:
    """Called once the API key has been checked. Raises `MalformedUpload`."""
    try:
        return deserialize(content)
    except DecodeError as exc:
        raise MalformedUpload("this is not the message that the method takes") from exc


def _given_keys(metadata: dict[str, Any]) -> tuple[str, str]:
    scheme, _, credentials = str(metadata.get("authorization", "")).partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    return bearer, str(metadata.get("x-api-key", ""))
