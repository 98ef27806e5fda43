"""Heads of requests, the request line and the headers, bounded in bytes and in time.

uvicorn's parser bounds neither: a header that never ends would fill the memory, one that never
comes would hold its connection for ever. `BoundedProtocol` finds them, and what is no HTTP at
all; `RefusedRequests` has the application answer them, so that they are counted, logged and
worded like everything else.
"""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import (
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    ServiceError,
    UriTooLong,
)

MAX_URI_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_HEADERS_BYTES = 32 * 1024
_MAX_UNFINISHED_BYTES = 2 * (MAX_URI_BYTES + MAX_HEADERS_BYTES)
_LINGER_S = 2
REFUSED = "refused"  # in the state of a scope: the error to answer with
_PATH = re.compile(rb"/[!-~]{,255}")  # as much as is shown of a refused one


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, for connections that do not come to the point.

    A head that does not end is cut off. What counts is bytes since the last one of a body, so
    that trailers and the like are bounded too. A connection without a request, or with half a
    head, lasts no longer than an idle one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self.headers = []
        self._in_head = False
        self._deaf = False
        self._beside_bodies = 0  # bytes
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.cycle is None or self.cycle.response_complete:
            self._start_waiting()
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > _MAX_UNFINISHED_BYTES:
            self._cut_off(_too_large(self.url, self.headers) or HeadersTooLarge("they never end"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._beside_bodies = 0  # where in the data it begins is not known
        self._start_waiting()

    def on_headers_complete(self) -> None:
        self._beside_bodies = 0
        self._stop_waiting()
        if error := _too_large(self.url, self.headers):
            self._refuse(error)
        super().on_headers_complete()
        self._in_head = False  # unless it cannot be read

    def on_body(self, body: bytes) -> None:
        self._beside_bodies = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if self._in_head and self.url:
            self._cut_off(MalformedRequest("the request line or a header cannot be read"))
        else:
            super().send_400_response(msg)

    def _start_waiting(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self._waited)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _waited(self) -> None:
        self._patience = None
        if self.flow.read_paused:  # the client waits for us
            self._start_waiting()
        else:
            self._cut_off(
                RequestTimeout(f"no whole request line and headers in {self.timeout_keep_alive} s")
            )

    def _refuse(self, error: ServiceError) -> None:
        path = _PATH.match(self.url)
        self.url = path[0] if path else b"/"
        self.scope["state"].setdefault(REFUSED, error)

    def _cut_off(self, error: ServiceError) -> None:
        """Hear no more; answer a head as far as it came."""
        self._deaf = True
        if self.transport.is_closing() or not (self._in_head and self.url):
            self.transport.close()
            return
        self._refuse(error)
        self.on_headers_complete()
        self.cycle.keep_alive = False
        self.cycle.more_body = False
        self.cycle.transport = _Lingering(self.transport, self.loop)


def _too_large(url: bytes, headers: list[tuple[bytes, bytes]]) -> ServiceError | None:
    if len(url) > MAX_URI_BYTES:
        return UriTooLong(f"more than {MAX_URI_BYTES:,} bytes")
    if len(headers) > MAX_HEADERS:
        return HeadersTooLarge(f"more than {MAX_HEADERS}")
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS_BYTES:
        return HeadersTooLarge(f"more than {MAX_HEADERS_BYTES:,} bytes")
    return None


class _Lingering(asyncio.Transport):
    """Closes after hearing the client out for a while.

    Closed at once, with bytes unread, the connection is reset, and the answer may be lost.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.close)
