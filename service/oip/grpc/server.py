"""The gRPC server: its own port, the event loop of whoever starts it."""

import logging
from collections.abc import Sequence

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from service.api_keys import ApiKeys
from service.errors import StartupError
from service.oip.grpc.health import Health
from service.oip.grpc.interceptor import CallInterceptor
from service.oip.grpc.messages import Messages
from service.oip.grpc.responses import Responses
from service.oip.grpc.servicer import InferenceServicer
from service.runtime import Runtime

_logger = logging.getLogger(__name__)

_MAX_CALLS = 1024  # with those that wait for room, or that watch the health
_OPTIONS = {
    "grpc.max_send_message_length": -1,  # response sizes are checked beforehand
    "grpc.so_reuseport": 0,  # starting on a port in use must fail
    "grpc.max_allowed_incoming_connections": 512,
    "grpc.max_concurrent_streams": 256,  # of one connection; clients queue further calls
    # What arrives before it is read: a window of 64 KiB for each call, whatever the bandwidth. One
    # that is read may send all of its message, so this takes one round trip more.
    "grpc.http2.bdp_probe": 0,
    # Connections that say nothing, have no calls, or have lost their clients
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 300_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
}
_LEAST_MESSAGE_BYTES = 4 * 2**20  # gRPC's default; for models with larger inputs, loaded later
_BYTES_BESIDE_VALUES = 64 * 2**10  # names, shapes, parameters


def _max_message_bytes(runtime: Runtime) -> int:
    """What the largest batch of any served model takes in the longer of the two encodings."""
    sizes = [served.manifest.preprocessing.size for served in runtime.pipeline.models]
    pixels = max((size.height * size.width for size in sizes), default=0)
    values = 3 * pixels * runtime.upload_limits.max_images
    largest = 2 * values + _BYTES_BESIDE_VALUES  # typed contents take up to two bytes a value
    return min(max(largest, _LEAST_MESSAGE_BYTES), runtime.upload_limits.max_bytes)


def _has_a_client(record: logging.LogRecord) -> bool:
    """False for gRPC's errors about clients that left before they had the end of an answer."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


class GrpcServer:
    def __init__(
        self,
        runtime: Runtime,
        *,
        host: str,
        port: int,
        max_unsent_bytes: int,
        api_keys: Sequence[str] = (),
    ) -> None:
        self._runtime = runtime
        self._max_unsent_bytes = max_unsent_bytes
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._api_keys = api_keys

    @property
    def address(self) -> str:
        """Where it listens, once it has started."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Start to accept calls. Raises `StartupError`."""
        runtime = self._runtime
        max_bytes = _max_message_bytes(runtime)
        calls = CallInterceptor(
            ApiKeys(self._api_keys),
            runtime.metrics,
            Messages(runtime, max_bytes),
            Responses(self._max_unsent_bytes),
        )
        self._server = grpc.aio.server(
            interceptors=[calls],
            options=[*_OPTIONS.items(), ("grpc.max_receive_message_length", max_bytes)],
            maximum_concurrent_rpcs=_MAX_CALLS,
        )
        add_GRPCInferenceServiceServicer_to_server(InferenceServicer(runtime), self._server)
        add_HealthServicer_to_server(Health(runtime), self._server)
        try:
            self._port = self._server.add_insecure_port(self.address)
        except RuntimeError as exc:
            raise StartupError(f"gRPC cannot listen on {self.address}") from exc
        logging.getLogger("grpc._cython.cygrpc").addFilter(_has_a_client)
        await self._server.start()
        _logger.info("gRPC on %s", self.address)

    async def stop(self, timeout_s: float) -> None:
        """Accept no more calls; cancel those still running after the timeout."""
        await self._server.stop(timeout_s)
