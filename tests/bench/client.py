"""Load over HTTP/1.1 that costs little beside the server it shares the machine with.

Closed loop: so many clients, each sends its next request once the last one is answered. Open
loop: requests arrive when they arrive, at random, and latency counts from there, so that a
server that stalls is not spared the requests that came meanwhile.
"""

import asyncio
import random
import re
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
_PATIENCE_S = 60


@dataclass
class Load:
    """What came back in the seconds that count."""

    seconds: float = 0.0
    client_s: float = 0.0  # of processor time
    server_s: float = 0.0  # of processor time, with the requests that do not count
    requests: int = 0  # with those
    latencies_s: list[float] = field(default_factory=list)  # of right answers
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


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """`clients` connections for so long, after a second that does not count."""
    return uvloop.run(_closed(port, requests, clients, seconds))


def open_loop(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> Load:
    """Poisson arrivals for so long; what is under way at the end is waited for."""
    return uvloop.run(_open(port, requests, per_s, seconds))


class _Connection(asyncio.Protocol):
    """One request at a time; `answered` is told the status, 0 if the connection broke."""

    def __init__(self) -> None:
        self.answered: Callable[[int], None] | None = None
        self._received = bytearray()
        self._needed = 0  # bytes, once the head has come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def ask(self, request: bytes, answered: Callable[[int], None]) -> None:
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
            self._tell(status)

    def connection_lost(self, _: Exception | None) -> None:
        self._tell(0)

    def _tell(self, status: int) -> None:
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
        connection.ask(next(todo), answered)

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
    async with asyncio.timeout(end - time.perf_counter() + _PATIENCE_S):
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
    under_way: set[asyncio.Task[None]] = set()
    started = arrival = time.perf_counter()
    client_s = time.process_time()
    while (arrival := arrival + random_.expovariate(per_s)) < started + seconds:
        if (early := arrival - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        if len(under_way) >= _MAX_CONNECTIONS:
            load.statuses[503] += 1  # nobody gets through any more
            continue
        task = asyncio.create_task(_once(port, next(todo), arrival, idle, load))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    load.client_s = time.process_time() - client_s
    if under_way:
        _, late = await asyncio.wait(under_way, timeout=_PATIENCE_S)
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
    connection.ask(request, status.set_result)
    found = await status
    load.statuses[found] += 1
    if found == 200:
        load.latencies_s.append(time.perf_counter() - arrival)
    if found:
        idle.append(connection)
