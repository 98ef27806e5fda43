"""Sends requests over several connections at once and keeps count of what came back.

Plain asyncio streams: a client has to leave in the middle of a request, and must cost
little beside the server that it shares the machine with.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

LEFT = "left"  # in the place of a status, where the client did not wait for one
_ANSWER_TIMEOUT_S = 120
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: close", re.IGNORECASE)

Leaving = Literal["while sending", "once sent", "while waiting", "while reading"]


@dataclass(frozen=True)
class Request:
    kind: str
    target: str
    body: bytes | None = None  # None asks with GET
    headers: tuple[tuple[str, str], ...] = ()
    right: frozenset[int] = frozenset({200})  # statuses
    leaving: Leaving | None = None
    patience_s: float = 0.0  # of one that leaves while waiting
    declared: int | None = None  # bytes of the body, where that is not the truth

    def encode(self) -> bytes:
        """As it goes over the wire (HTTP/1.1)."""
        method, body = ("GET", b"") if self.body is None else ("POST", self.body)
        lines = [f"{method} {self.target} HTTP/1.1", "Host: service"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body is not None:
            lines.append(f"Content-Length: {self.declared or len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Tally:
    """What became of the requests of one kind."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of answers
    failures: list[str] = field(default_factory=list)


@dataclass
class Report:
    kinds: dict[str, Tally] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return sum(tally.statuses.total() for tally in self.kinds.values())

    @property
    def failures(self) -> list[str]:
        """Everything that was not right, in words."""
        return [text for tally in self.kinds.values() for text in tally.failures]

    def count(self, status: int | str) -> int:
        return sum(tally.statuses[status] for tally in self.kinds.values())

    def add(self, request: Request, status: int | str, seconds: float, body: bytes) -> None:
        tally = self.kinds.setdefault(request.kind, Tally())
        tally.statuses[status] += 1
        if isinstance(status, int):
            tally.seconds.append(seconds)
        if status not in request.right and not (status == LEFT and request.leaving):
            said = body[:300].decode(errors="replace")
            tally.failures.append(f"{request.kind}: {request.target[:200]}: {status} {said}")


async def send(url: str, requests: Iterable[Request], clients: int, report: Report) -> None:
    """All requests, from `clients` connections that take turns."""
    todo = iter(requests)
    await asyncio.gather(*(_work(url, todo, report) for _ in range(clients)))


async def _work(url: str, todo: Iterator[Request], report: Report) -> None:
    client = _Client(url)
    for request in todo:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                status, body = await client.ask(request)
        except (OSError, EOFError, TimeoutError) as exc:
            status, body = type(exc).__name__, b""
            client.close()
        report.add(request, status, time.perf_counter() - started, body)
    client.close()


class _Client:
    """One connection at a time, kept for the next request unless somebody closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> tuple[int | str, bytes]:
        """Status and body, or `LEFT`. Raises `OSError` or `EOFError` if there is no answer."""
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
        head = await reader.readuntil(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if _CLOSES.search(head):
            self.close()
        return int(head.split(maxsplit=2)[1]), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


QueueCounts = dict[tuple[str, str, str], dict[str, int]]  # by model, version, queue; by outcome


def settled_queue_counts(client: httpx.Client) -> QueueCounts:
    """What became of every image, once none is in flight, or else after a minute."""
    end = time.monotonic() + 60
    while True:
        counts = _queue_counts(client.get("/metrics").text)
        if all(map(add_up, counts.values())) or time.monotonic() > end:
            return counts


def add_up(counts: dict[str, int]) -> bool:
    ended = sum(counts[outcome] for outcome in ("answered", "failed", "cancelled", "expired"))
    return counts["accepted"] == ended


def _queue_counts(metrics: str) -> QueueCounts:
    counts: QueueCounts = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "deepvit_images_total":
                where = sample.labels
                queue = where["model"], where["version"], where["queue"]
                counts.setdefault(queue, {})[where["fate"]] = int(sample.value)
    return counts
