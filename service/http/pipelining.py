"""Pipelined requests (RFC 9112, 9.3.2): only a few are parsed before the first is answered.

uvicorn parses whatever arrives in one piece, and begins a request for each head in it: thousands
for one packet of the smallest ones. Here the rest of what has arrived waits, and reading with it.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from service.http.upgrades import UpgradeIgnoringProtocol

MAX_WAITING_REQUESTS = 4  # of one connection, parsed and not begun
_END_OF_HEAD = b"\r\n\r\n"
_CHUNKED_PIECE = 512  # at least so many bytes of a chunked body are parsed at once


class PipeliningProtocol(UpgradeIgnoringProtocol):
    """Parses what arrives in pieces that end where a request may end, as `parse` is given them."""

    flow: "_HeldFlow"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_closed = False  # nothing more is parsed
        self._unparsed = b""
        self._in_body = False
        self._body_left: int | None = None  # bytes, where the request says how many

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _HeldFlow(transport)

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._parse_pieces()

    def parse(self, piece: bytes) -> None:
        super().data_received(piece)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        names = dict(self.headers)
        length = names.get(
            b"content-length", b""
        )  # of a request that is refused it may be anything
        self._in_body = True
        self._body_left = None
        if length.isdigit() and b"transfer-encoding" not in names:
            self._body_left = int(length[:18])

    def on_body(self, body: bytes) -> None:
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.flow.held:
            self.flow.held = False
            self._parse_pieces()
            if not (self.flow.held or self.pipeline or len(self.cycle.body) > HIGH_WATER_LIMIT):
                self.flow.resume_reading()

    def _parse_pieces(self) -> None:
        data, self._unparsed = self._unparsed, b""
        start = 0
        while start < len(data) and not (self.input_closed or self.transport.is_closing()):
            if len(self.pipeline) >= MAX_WAITING_REQUESTS:
                self._unparsed = data[start:]
                self.flow.hold()
                return
            end = self._end_of_piece(data, start)
            self.parse(data[start:end])
            start = end

    def _end_of_piece(self, data: bytes, start: int) -> int:
        if self._in_body and self._body_left:
            return min(start + self._body_left, len(data))
        # A chunked body ends as the head of a request does.
        found = data.find(_END_OF_HEAD, start + _CHUNKED_PIECE if self._in_body else start)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)


class _HeldFlow(FlowControl):
    """Reading stays paused while it is held, whoever would resume it."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()
