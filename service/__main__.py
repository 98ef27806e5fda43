"""`python -m service`: serve the model repository over HTTP, and over gRPC if a port is set."""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from service.app import build_app, build_grpc_server, build_runtime
from service.errors import StartupError
from service.http.prefix import ReadProxyHeaders
from service.http.protocol import BoundedProtocol
from service.http.unsent import UnsentAnswers
from service.limits.connections import Connections
from service.runtime import Runtime
from service.settings.server import Settings
from service.telemetry import log

if TYPE_CHECKING:
    from service.oip.grpc.server import GrpcServer

_logger = logging.getLogger(__name__)
_OTHER_FILES = 1024  # besides HTTP connections: models, logs, gRPC, Redis


def main(arguments: list[str]) -> int:
    """Exit status 0 after a shutdown, 1 with one clear line if the start fails."""
    # This handler runs while models load, and when uvicorn raises the signal again at its end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(Settings.load(arguments))
    except StartupError as exc:
        print(f"service: {exc.detail}", file=sys.stderr)
        return 1
    return 0


def _serve(settings: Settings) -> None:
    log.configure(settings.log_format)
    _check_address(settings.host, settings.port)  # before models are loaded, which takes seconds
    runtime = build_runtime(settings)
    grpc_server = build_grpc_server(settings, runtime)
    _allow_connections(settings.max_connections)
    config = uvicorn.Config(
        ReadProxyHeaders(build_app(settings, runtime), _trusted_proxies()),
        host=settings.host,
        port=settings.port,
        http=_protocol(settings),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # they have been read
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    gc.freeze()  # what is loaded by now stays, so garbage collections need not scan it
    _Server(config, runtime, settings, grpc_server).run()


def _protocol(settings: Settings) -> Any:
    """uvicorn's protocol of a connection, as a class or anything else that makes one."""
    max_bytes = max(settings.max_unsent_bytes, settings.max_answer_bytes)
    return partial(
        BoundedProtocol,
        Connections(settings.max_connections),
        UnsentAnswers(max_bytes, settings.write_timeout_s),
    )


def _allow_connections(most: int) -> None:
    """Let this process open as many files, which connections are, as the system grants it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _logger.warning(
            "max_connections is %d, and the system allows %d open files (ulimit -n)", most, hard
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_address(host: str, port: int) -> None:
    """Raises `StartupError` unless the service can listen there."""
    failures: list[OSError | None]
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        failures = [exc]
    else:
        failures = [_failure_to_bind(family, place) for family, *_, place in places]
    for failure in filter(None, failures):
        # A name may have addresses that this machine has not, as localhost has ::1.
        if failure.errno != errno.EADDRNOTAVAIL or None not in failures:
            raise StartupError(f"cannot listen on {host}:{port}: {failure.strerror}")


def _failure_to_bind(family: int, place: Any) -> OSError | None:
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(place)
    except OSError as exc:
        return exc
    return None


def _trusted_proxies() -> str:
    """Addresses or networks, comma-separated, or `*`, from the variable that uvicorn reads too."""
    return os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")


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
        self._runtime = runtime
        self._grpc_server = grpc_server
        self._drain_delay_s = settings.drain_delay_s
        self._drain_timeout_s = settings.drain_timeout_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._grpc_server:
            await self._grpc_server.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._runtime.draining = True
        if self._grpc_server:
            started = time.monotonic()
            await self._grpc_server.stop(self._drain_timeout_s)
            left_s = self._drain_timeout_s - (time.monotonic() - started)  # for HTTP
            self.config.timeout_graceful_shutdown = max(1, round(left_s))
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in the event loop's thread, between any two steps of its code."""
        if sig != signal.SIGTERM or self._runtime.draining:
            super().handle_exit(sig, frame)
            return
        self._runtime.draining = True
        loop = asyncio.get_running_loop()
        stop = super().handle_exit
        loop.call_soon_threadsafe(loop.call_later, self._drain_delay_s, stop, sig, frame)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
