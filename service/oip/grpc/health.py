"""The standard health service, grpc.health.v1; it reports the same readiness as /readyz."""

import asyncio
from collections.abc import AsyncIterator

from grpc import StatusCode
from grpc.aio import ServicerContext
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from grpc_health.v1.health_pb2_grpc import HealthServicer

from service.errors import QueueFull
from service.runtime import Runtime

SERVICES = ("", "inference.GRPCInferenceService")

_WATCH_INTERVAL_S = 0.5
_MAX_WATCHERS = 64  # they need no API key


class Health(HealthServicer):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._watchers = 0

    async def Check(
        self, request: HealthCheckRequest, context: ServicerContext
    ) -> HealthCheckResponse:
        if request.service not in SERVICES:
            await context.abort(StatusCode.NOT_FOUND, "no such service")
        return self._status()

    async def List(self, _: HealthListRequest, context: ServicerContext) -> HealthListResponse:
        return HealthListResponse(statuses=dict.fromkeys(SERVICES, self._status()))

    async def Watch(
        self, request: HealthCheckRequest, context: ServicerContext
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now and after every change, until the server begins to drain.

        Raises `QueueFull`.
        """
        if self._watchers == _MAX_WATCHERS:
            raise QueueFull(f"at most {_MAX_WATCHERS} clients can watch", retry_after_s=60)
        if request.service not in SERVICES:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            return
        last_sent = None
        self._watchers += 1
        try:
            while True:
                draining = self._runtime.draining
                status = self._status()
                if status != last_sent:
                    yield status
                    last_sent = status
                if draining:
                    return  # an open stream would keep the server from stopping
                await asyncio.sleep(_WATCH_INTERVAL_S)
        finally:
            self._watchers -= 1

    def _status(self) -> HealthCheckResponse:
        ready = self._runtime.ready
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        )
