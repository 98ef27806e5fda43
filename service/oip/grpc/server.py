"""A gRPC server on a port of its own, in the event loop that it is started in."""

import logging
from collections.abc import Sequence

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from service.api_keys import ApiKeys
from service.errors import StartupError
from service.oip.grpc.calls import Calls
from service.oip.grpc.health import Health
from service.oip.grpc.inference import Inference
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
        """Answer calls from now on. Raises `StartupError`."""
        runtime = self._runtime
        self._server = grpc.aio.server(
            interceptors=[Calls(ApiKeys(self._api_keys), runtime.metrics)],
            options=[
                ("grpc.max_receive_message_length", runtime.upload_limits.max_bytes),
                ("grpc.max_send_message_length", -1),  # what is too large was refused before
                ("grpc.so_reuseport", 0),  # a port that is taken is an error
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(Inference(runtime), self._server)
        add_HealthServicer_to_server(Health(runtime), self._server)
        try:
            self._port = self._server.add_insecure_port(self.address)
        except RuntimeError as exc:
            raise StartupError(f"gRPC cannot listen on {self.address}") from exc
        await self._server.start()
        _logger.info("gRPC on %s", self.address)

    async def stop(self, timeout_s: float) -> None:
        """Take no more calls, and finish those under way or cancel them after the timeout."""
        await self._server.stop(timeout_s)
