"""Sends requests over several connections at once and counts what comes back.

Uses plain asyncio streams: a client must be able to disconnect in the middle of a request, and
must cost little because it shares the machine with the server.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

LEFT = "left"  # instead of a status, where the client disconnected before the answer
_RESPONSE_TIMEOUT_S = 120
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: close", re.IGNORECASE)

Leaving = Literal["while sending", "once sent", "while waiting", "while reading"]


@dataclass(frozen=True)
class Request:
    kind: str
    target: str
    body: bytes | None = None  # None sends a GET
    headers: tuple[tuple[str, str], ...] = ()
    expected: frozenset[int] = frozenset({200})  # statuses
    leaving: Leaving | None = None
    patience_s: float = 0.0  # how long a client waits that leaves "while waiting"
    declared: int | None = None  # Content-Length, where it is not that of the body

    def encode(self) -> bytes:
        """The request as HTTP/1.1 bytes."""
        method, body = ("GET", b"") if self.body is None else ("POST", self.body)
        lines = [f"{method} {self.target} HTTP/1.1", "Host: service"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body is not None:
            lines.append(f"Content-Length: {self.declared or len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Tally:
    """Results of the requests of one kind."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # one for each response
    failures: list[str] = field(default_factory=list)


@dataclass
class Report:
    kinds: dict[str, Tally] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return sum(tally.statuses.total() for tally in self.kinds.values())

    @property
    def failures(self) -> list[str]:
        """A line for each response that was not expected."""
        return [text for tally in self.kinds.values() for text in tally.failures]

    def count(self, status: int | str) -> int:
        return sum(tally.statuses[status] for tally in self.kinds.values())

    def add(self, request: Request, status: int | str, seconds: float, body: bytes) -> None:
        tally = self.kinds.setdefault(request.kind, Tally())
        tally.statuses[status] += 1
        if isinstance(status, int):
            tally.seconds.append(seconds)
        if status not in request.expected and not (status == LEFT and request.leaving):
            text = body[:300].decode(errors="replace")
            tally.failures.append(f"{request.kind}: {request.target[:200]}: {status} {text}")


async def send(url: str, requests: Iterable[Request], clients: int, report: Report) -> None:
    """Send all requests over `clients` connections; each takes the next one when it is free."""
    todo = iter(requests)
    await asyncio.gather(*(_send_next(url, todo, report) for _ in range(clients)))


async def _send_next(url: str, todo: Iterator[Request], report: Report) -> None:
    client = _Client(url)
    for request in todo:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_RESPONSE_TIMEOUT_S):
                status, body = await client.send(request)
        except (OSError, EOFError, TimeoutError) as exc:
            status, body = type(exc).__name__, b""
            client.close()
        report.add(request, status, time.perf_counter() - started, body)
    client.close()


class _Client:
    """One connection, kept for the next request unless either side closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> tuple[int | str, bytes]:
        """Status and body, or `LEFT`. Raises `OSError` or `EOFError` without a response."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        message = request.encode()
        if request.leaving == "while sending":
            message = message[: len(message) * 2 // 3]
        writer.write(message)
        await writer.drain()
        if request.leaving is None:
            status, body = await self._read(reader)
            if request.declared:
                self.close()
            return status, body
        try:
            if request.leaving == "while waiting":
                async with asyncio.timeout(request.patience_s):
                    return await self._read(reader)
            if request.leaving == "while reading":
                await reader.readexactly(20)
        except TimeoutError:
            pass
        self.close()
        return LEFT, b""

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        headers = await reader.readuntil(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(headers)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if _CLOSES.search(headers):
            self.close()
        return int(headers.split(maxsplit=2)[1]), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
