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
from service.oip.grpc.servicer import InferenceServicer
from service.runtime import Runtime

_logger = logging.getLogger(__name__)


class GrpcServer:
    def __init__(
        self, runtime: Runtime, *, host: str, port: int, api_keys: Sequence[str] = ()
    ) -> None:
        self._runtime = runtime
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
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(ApiKeys(self._api_keys), runtime.metrics)],
            options=[
                ("grpc.max_receive_message_length", runtime.upload_limits.max_bytes),
                ("grpc.max_send_message_length", -1),  # response sizes are checked beforehand
                ("grpc.so_reuseport", 0),  # starting on a port in use must fail
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(InferenceServicer(runtime), self._server)
        add_HealthServicer_to_server(Health(runtime), self._server)
        try:
            self._port = self._server.add_insecure_port(self.address)
        except RuntimeError as exc:
            raise StartupError(f"gRPC cannot listen on {self.address}") from exc
        await self._server.start()
        _logger.info("gRPC on %s", self.address)

    async def stop(self, timeout_s: float) -> None:
        """Accept no more calls; cancel those still running after the timeout."""
        await self._server.stop(timeout_s)
