"""Ports, and requests written by hand over real sockets, for what no HTTP client would send."""

import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.support.server import Server


@contextmanager
def connected(server: Server, begin: bytes = b"") -> Iterator[socket.socket]:
    """A connection over which the first bytes have been sent."""
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(begin)
        yield connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def reserved_port() -> int:
    """Free, and none that the system gives to whoever asks: it stays free for seconds."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def statuses(received: bytes) -> list[int]:
    """The status of every answer, one after the other."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
