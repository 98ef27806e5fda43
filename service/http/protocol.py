"""uvicorn's HTTP/1.1 protocol, with limits on the request line and the headers.

uvicorn's parser limits neither their size nor their time: a header that never ends would fill the
memory, and one that never comes would hold its connection forever. `BoundedProtocol` finds these
requests, and those that are not HTTP. It only marks them as refused: the `AnswerRefusals`
middleware answers them, so that they are counted, logged and worded like all others.
"""

import asyncio
import re
from typing import Any

from service.errors import (
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    ServiceError,
    UriTooLong,
)
from service.http.disconnects import LEFT
from service.http.lingering import LingeringTransport
from service.http.pipelining import PipeliningProtocol
from service.http.unsent import OUTBOX, Outbox, UnsentAnswers
from service.limits.connections import Connections
from service.limits.fairness import client_at

MAX_URI_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_HEADERS_BYTES = 32 * 1024
REFUSAL = "refusal"  # key in the state of a scope: the error to answer with

_MAX_BYTES_OUTSIDE_BODIES = 2 * (MAX_URI_BYTES + MAX_HEADERS_BYTES)
_SHOWN_PATH = re.compile(rb"/[!-~]{,255}")  # the part of a refused path that the answer repeats


class BoundedProtocol(PipeliningProtocol):
    """Refuses a request whose line and headers are too large, too slow or not HTTP.

    The limit in bytes counts everything since the last byte of a body, so that it covers trailers
    and chunk extensions too. A connection may stay without a complete request line and headers
    for as long as it may be idle. The rest of a body that was not read before its answer is
    discarded (`LingeringTransport`); if it ends within bounds, the connection is kept. What is to
    be sent counts among the unsent answers of all connections.
    """

    transport: LingeringTransport
    _outbox: Outbox
    _left: "asyncio.Future[None]"  # done once the connection is lost

    def __init__(
        self, others: Connections, answers: UnsentAnswers, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._others = others
        self._answers = answers
        self.url = b""
        self.headers = []
        self._reading_headers = False
        self._bytes_outside_bodies = 0  # since the last byte of a body
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._left = self.loop.create_future()
        self._outbox = Outbox(self._answers, transport)
        super().connection_made(
            LingeringTransport(transport, self.loop, self.timeout_keep_alive, self._outbox.wrote)
        )
        self._start_header_timer()
        self.owner = client_at(self.client[0]) if self.client else ""
        self._others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.remove(self)
        self._stop_header_timer()
        self.transport.stop_discarding()
        self._outbox.discard()
        super().connection_lost(exc)
        self._left.set_result(None)

    @property
    def waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def end(self) -> None:
        self.transport.close()

    def shutdown(self) -> None:
        self.transport.hurry()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        self.transport.received(len(data))
        if self.input_closed or self.transport.is_closing():
            return
        if not self.transport.unread and (self.cycle is None or self.cycle.response_complete):
            self._start_header_timer()
        super().data_received(data)

    def parse(self, piece: bytes) -> None:
        self._bytes_outside_bodies += len(piece)
        super().parse(piece)  # calls the on_... methods below
        if self._bytes_outside_bodies > _MAX_BYTES_OUTSIDE_BODIES:
            error = _exceeded_limit(self.url, self.headers)
            self._refuse_and_close(error or HeadersTooLarge("they never end"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][OUTBOX] = self._outbox
        self._reading_headers = True
        self._bytes_outside_bodies = 0  # the parser does not say where in the data it begins
        self._start_header_timer()

    def on_headers_complete(self) -> None:
        self._bytes_outside_bodies = 0
        self._stop_header_timer()
        if error := _exceeded_limit(self.url, self.headers):
            self._mark_refused(error)
        super().on_headers_complete()
        self._reading_headers = False  # not reached if the line above raises
        self.transport.unread = True

    def on_body(self, body: bytes) -> None:
        self._bytes_outside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.transport.unread = False
        super().on_message_complete()
        if not self.flow.read_paused:  # else it is noticed only by who goes on to receive
            self.scope["state"][LEFT] = self._left
        if self.cycle is not None and self.cycle.response_complete:  # it was answered before
            self.transport.stop_discarding()
            self._start_header_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The last request that was received may be a later one, which waits for its answer.
        if self.transport.unread and self.cycle.response_complete:
            self.transport.start_discarding()

    def send_400_response(self, msg: str) -> None:
        if self._reading_headers and self.url:
            self._refuse_and_close(
                MalformedRequest("the request line or a header cannot be parsed")
            )
        else:
            self.transport.unread = True
            super().send_400_response(msg)

    def _start_header_timer(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(
                self.timeout_keep_alive, self._header_timer_expired
            )

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_timer_expired(self) -> None:
        self._header_timer = None
        if self.flow.read_paused:  # the delay is ours, not the client's
            self._start_header_timer()
        else:
            self._refuse_and_close(
                RequestTimeout(
                    f"the request line and headers took longer than {self.timeout_keep_alive} s"
                )
            )

    def _mark_refused(self, error: ServiceError) -> None:
        path = _SHOWN_PATH.match(self.url)
        self.url = path[0] if path else b"/"
        self.scope["state"].setdefault(REFUSAL, error)

    def _refuse_and_close(self, error: ServiceError) -> None:
        """Read no more, and answer with the error if there is at least a part of a URL."""
        self.input_closed = True
        if self.transport.is_closing():
            return
        if not (self._reading_headers and self.url):
            self.transport.unread = False  # no answer that the client could miss
            self.transport.close()
            return
        self._mark_refused(error)
        self.on_headers_complete()  # starts the application, which answers
        self.cycle.keep_alive = False
        self.cycle.more_body = False


def _exceeded_limit(url: bytes, headers: list[tuple[bytes, bytes]]) -> ServiceError | None:
    if len(url) > MAX_URI_BYTES:
        return UriTooLong(f"more than {MAX_URI_BYTES:,} bytes")
    if len(headers) > MAX_HEADERS:
        return HeadersTooLarge(f"more than {MAX_HEADERS} headers")
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS_BYTES:
        return HeadersTooLarge(f"more than {MAX_HEADERS_BYTES:,} bytes")
    return None
