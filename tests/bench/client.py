"""An HTTP/1.1 load generator that costs little, since it shares the machine with the server.

Closed loop: a fixed number of clients, each of which sends its next request when the last one is
answered. Open loop: requests arrive at random times, independent of the answers, and latency is
measured from the arrival, so that a stalled server still receives the requests of that time.
"""

import asyncio
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WARM_UP_S = 1.0
_MAX_CONNECTIONS = 1024
_TIMEOUT_S = 60


@dataclass
class Load:
    """Responses within the measured seconds, which start after the warm-up."""

    seconds: float = 0.0
    client_s: float = 0.0  # processor time of this process
    server_s: float = 0.0  # processor time of the server, warm-up included
    requests: int = 0  # warm-up included
    latencies_s: list[float] = field(default_factory=list)  # of responses with status 200
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_s(self) -> float:
        return self.statuses[200] / self.seconds

    @property
    def refused(self) -> int:
        return self.statuses[429] + self.statuses[503]

    @property
    def failed(self) -> int:
        return self.statuses.total() - self.statuses[200] - self.refused

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_s)
        if not ordered:
            return float("nan")
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3, 2)


def ask(port: int, request: bytes) -> bytes:
    """The whole response to one request. Raises `OSError`."""
    response = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(request)
        while not _whole(response):
            received = connection.recv(65536)
            if not received:
                break
            response += received
    return response


def _whole(response: bytes) -> bool:
    end = response.find(b"\r\n\r\n")
    length = _LENGTH.search(response, 0, end) if end >= 0 else None
    return length is not None and len(response) >= end + 4 + int(length[1])


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Keep `clients` connections busy for so many seconds, after a warm-up of one second."""
    return uvloop.run(_closed(port, requests, clients, seconds))


def open_loop(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> Load:
    """Poisson arrivals for so many seconds; waits for the requests in flight at the end."""
    return uvloop.run(_open(port, requests, per_s, seconds))


class _Connection(asyncio.Protocol):
    """One request at a time; calls `answered` with the status, or 0 if the connection broke."""

    def __init__(self) -> None:
        self.answered: Callable[[int], None] | None = None
        self._received = bytearray()
        self._needed = 0  # bytes of the response, known once its headers have arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def send(self, request: bytes, answered: Callable[[int], None]) -> None:
        self.answered = answered
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._needed:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._received, 0, end)
            self._needed = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= self._needed:
            status = int(self._received[9:12])
            self._received.clear()
            self._needed = 0
            self._report(status)

    def connection_lost(self, _: Exception | None) -> None:
        self._report(0)

    def _report(self, status: int) -> None:
        if answered := self.answered:
            self.answered = None
            answered(status)


async def _connect(port: int) -> _Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
    return connection


async def _closed(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    load = Load()
    todo = cycle(requests)
    begin = time.perf_counter() + _WARM_UP_S
    end = begin + seconds
    await asyncio.gather(
        *(_client(port, todo, begin, end, load) for _ in range(clients)), _clock(begin, end, load)
    )
    return load


async def _client(port: int, todo: Iterator[bytes], begin: float, end: float, load: Load) -> None:
    loop = asyncio.get_running_loop()
    connection = await _connect(port)
    done = loop.create_future()
    asked = 0.0

    def ask() -> None:
        nonlocal asked
        asked = time.perf_counter()
        connection.send(next(todo), answered)

    def answered(status: int) -> None:
        now = time.perf_counter()
        load.requests += 1
        if begin <= now < end:
            load.statuses[status] += 1
            if status == 200:
                load.latencies_s.append(now - asked)
        if now < end and status:
            ask()
        else:
            done.set_result(None)

    ask()
    async with asyncio.timeout(end - time.perf_counter() + _TIMEOUT_S):
        await done
    connection.transport.close()


async def _clock(begin: float, end: float, load: Load) -> None:
    await asyncio.sleep(begin - time.perf_counter())
    load.client_s = -time.process_time()
    await asyncio.sleep(end - time.perf_counter())
    load.client_s += time.process_time()
    load.seconds = end - begin


async def _open(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> Load:
    load = Load(seconds=seconds)
    todo = cycle(requests)
    random_ = random.Random(0)
    idle: list[_Connection] = []
    in_flight: set[asyncio.Task[None]] = set()
    started = arrival = time.perf_counter()
    client_s = time.process_time()
    while (arrival := arrival + random_.expovariate(per_s)) < started + seconds:
        if (early := arrival - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        if len(in_flight) >= _MAX_CONNECTIONS:
            load.statuses[503] += 1  # the client has no connection left
            continue
        task = asyncio.create_task(_once(port, next(todo), arrival, idle, load))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    load.client_s = time.process_time() - client_s
    if in_flight:
        _, late = await asyncio.wait(in_flight, timeout=_TIMEOUT_S)
        load.statuses[0] += len(late)
        for task in late:
            task.cancel()
    for connection in idle:
        connection.transport.close()
    return load


async def _once(
    port: int, request: bytes, arrival: float, idle: list[_Connection], load: Load
) -> None:
    connection = idle.pop() if idle else await _connect(port)
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connection.send(request, status.set_result)
    found = await status
    load.statuses[found] += 1
    if found == 200:
        load.latencies_s.append(time.perf_counter() - arrival)
    if found:
        idle.append(connection)
