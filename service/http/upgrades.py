"""Offers to change the protocol of a connection (Upgrade: h2c, websocket): they are ignored.

A server may ignore them (RFC 9110, 7.8), and the request then means what it means without the
offer. httptools has no such choice: to it, all that follows the headers is another protocol, so
that the request loses its body, and the body would be read as the next request.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol; it parses a request with an offer again, without the offer."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
                request = self._request_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                # As uvicorn has it: what a client sends after `Connection: close` is no error.
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(request)

    def _request_without_offer(self) -> bytes:
        """The request line and headers that were parsed last, but for the header Upgrade."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        if not self._is_offer():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._is_offer():
            super().on_message_complete()

    def _is_offer(self) -> bool:
        # After CONNECT too the parser expects another protocol; uvicorn refuses its address.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
