"""`python -m service`: serve the model repository over HTTP, and over gRPC where asked to."""

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from service import settings as settings_module
from service.app import build_runtime, build_tracing, create_app
from service.errors import StartupError
from service.http.protocol import BoundedProtocol
from service.runtime import Runtime
from service.settings import Settings, words
from service.telemetry import log

if TYPE_CHECKING:
    from service.oip.grpc.server import GrpcServer


def main(arguments: list[str]) -> int:
    """Exit status 0 after a shutdown, 1 with one clear line if the start fails."""
    # While models load, and when uvicorn raises the signal again after its shutdown.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(settings_module.load(arguments))
    except StartupError as exc:
        print(f"service: {exc.detail}", file=sys.stderr)
        return 1
    return 0


def _serve(settings: Settings) -> None:
    log.configure(settings.log_format)
    tracing = build_tracing()
    runtime = build_runtime(settings)
    api_keys = words(settings.api_keys.get_secret_value() if settings.api_keys else None)
    app = create_app(
        runtime,
        tracing=tracing,
        api_keys=api_keys,
        cors_origins=words(settings.cors_origins),
        repository_poll_s=settings.repository_poll_s,
        drain_timeout_s=settings.drain_timeout_s,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    grpc_server = _grpc_server(settings, runtime, api_keys)
    gc.freeze()  # what is loaded now stays: collections need not look through it again and again
    _Server(config, runtime, settings, grpc_server).run()


def _grpc_server(
    settings: Settings, runtime: Runtime, api_keys: Sequence[str]
) -> "GrpcServer | None":
    if settings.grpc_port is None:
        return None
    try:
        from service.oip.grpc.server import GrpcServer
    except ModuleNotFoundError as exc:
        raise StartupError(
            "grpc_port needs the package grpcio: pip install --constraint constraints.txt '.[grpc]'"
        ) from exc
    return GrpcServer(runtime, host=settings.host, port=settings.grpc_port, api_keys=api_keys)


class _Server(uvicorn.Server):
    """Stays reachable but not ready for a while after SIGTERM, then stops as uvicorn does.

    uvicorn alone closes its socket at once, before any load balancer has noticed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        runtime: Runtime,
        settings: Settings,
        grpc_server: "GrpcServer | None",
    ) -> None:
        super().__init__(config)
        self._grpc_server = grpc_server
        self._drain_timeout_s = settings.drain_timeout_s
        self._runtime = runtime
        self._delay_s = settings.drain_delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._grpc_server:
            await self._grpc_server.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._runtime.draining = True
        if self._grpc_server:
            started = time.monotonic()  # both kinds of work have one timeout
            await self._grpc_server.stop(self._drain_timeout_s)
            left_s = self._drain_timeout_s - (time.monotonic() - started)
            self.config.timeout_graceful_shutdown = max(1, round(left_s))
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs between two steps of the event loop's thread."""
        if sig != signal.SIGTERM or self._runtime.draining:
            super().handle_exit(sig, frame)
            return
        self._runtime.draining = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._delay_s, super().handle_exit, sig, frame)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
