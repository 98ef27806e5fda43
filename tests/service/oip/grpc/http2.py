"""A client that speaks HTTP/2 by hand, and so can send a part of a message and then nothing."""

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.service.oip.grpc.calls import SERVICE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4  # a setting
_LARGEST_FRAME = 16384


class Call:
    """One call on a connection of its own."""

    def __init__(self, connection: socket.socket, method: str) -> None:
        self._connection = connection
        self._windows = {0: 65535, 1: 65535}  # of the connection and of the call, in bytes
        self._initial_window = 65535
        self.ended = False
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/{SERVICE}/{method}",
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._send(_HEADERS, _END_HEADERS, block)

    def send(self, content: bytes) -> None:
        """As much as the server takes in before it ends the call."""
        at = 0
        while at < len(content) and not self.ended:
            size = min(len(content) - at, _LARGEST_FRAME, *self._windows.values())
            if size <= 0:
                self.receive()
                continue
            self._send(_DATA, 0, content[at : at + size])
            at += size
            for stream in self._windows:
                self._windows[stream] -= size

    def receive(self) -> None:
        """One frame from the server."""
        length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + self._read(9))
        payload = self._read(length)
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, length, 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == _INITIAL_WINDOW_SIZE:
                    self._windows[1] += value - self._initial_window
                    self._initial_window = value
            self._connection.sendall(_frame(_SETTINGS, _ACK, 0))
        elif kind == _WINDOW_UPDATE:
            self._windows[stream] += struct.unpack(">I", payload)[0]
        elif kind == _PING and not flags & _ACK:
            self._connection.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            self.ended = True

    def receive_if_any(self) -> None:
        if select.select([self._connection], [], [], 0.005)[0]:
            self.receive()

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        with suppress(ConnectionError):  # the next read says why
            self._connection.sendall(_frame(kind, flags, 1, payload))

    def _read(self, length: int) -> bytes:
        content = self._connection.recv(length, socket.MSG_WAITALL) if length else b""
        if len(content) < length:
            raise ConnectionError("the server closed the connection")
        return content


@contextmanager
def calling(address: str, method: str, source: str = "127.0.0.1") -> Iterator[Call]:
    """A call from an address of this machine; nothing of its message is sent yet."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 60, (source, 0)) as connection:
        yield Call(connection, method)


def prefixed(message: bytes) -> bytes:
    """A message as gRPC frames it: its length comes first."""
    return struct.pack(">xI", len(message)) + message


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    """A name or a value in HPACK, which begins a field that is not indexed with a zero."""
    return bytes([len(text)]) + text.encode()
