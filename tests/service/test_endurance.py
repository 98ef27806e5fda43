"""Tens of thousands of right and wrong requests: all are answered, and nothing leaks."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from tests.conftest import TINY
from tests.support import load, traffic
from tests.support.memory import Footprint
from tests.support.server import Server, running_server

REQUESTS = 20_000
STRETCH = 500  # requests between two measurements of the server
CLIENTS = 16
REMEMBERED = 10_000  # ids that a store still knows as expired
MAX_GROWTH_BYTES = 10 * 2**20  # over half of REQUESTS: 1 KB per request
# glibc adapts how much freed memory it keeps; fixed thresholds turn that off.
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass
class Ordeal:
    """Measurements of a server, and its answers."""

    report: load.Report = field(default_factory=load.Report)
    footprints: list[Footprint] = field(default_factory=list)
    counts: load.QueueCounts = field(default_factory=dict)
    before: list[float] = field(default_factory=list)  # a good request's answer
    after: list[float] = field(default_factory=list)
    log: str = ""


@contextmanager
def plain_server(repository: Path, **settings: int) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLAIN_MALLOC.items():
            patch.setenv(name, value)
        with running_server(repository, **traffic.SETTINGS | settings) as server:
            yield server


def endure(server: Server, requests: int) -> Ordeal:
    """Measure a server once every bounded container is full and every session is open."""
    seen = Ordeal()
    with server.client() as client:
        seen.before = traffic.good_answer(client, TINY)
        traffic.fill(client, TINY, REMEMBERED)
        mix = iter(traffic.start(client, TINY, seed=1))
        send(server, islice(mix, 2 * STRETCH), seen.report)
        for _ in range(0, requests, STRETCH):
            send(server, islice(mix, STRETCH), seen.report)
            seen.footprints.append(Footprint.of(server.process.pid))
        seen.counts = load.settled_queue_counts(client)
        seen.after = traffic.good_answer(client, TINY)
    seen.log = "".join(server.log)
    return seen


def send(server: Server, requests: Iterator[load.Request], report: load.Report) -> None:
    asyncio.run(load.send(server.url, requests, CLIENTS, report))


def growth(footprints: Sequence[Footprint]) -> int:
    """Bytes by which the second half's minimum is larger than the first half's.

    Minima, because large images and sessions hold memory for a while only.
    """
    sizes = [footprint.resident_bytes for footprint in footprints]
    half = len(sizes) // 2
    return min(sizes[half:]) - min(sizes[:half])


@pytest.fixture(scope="module")
def ordeal(tiny_repository: Path) -> Ordeal:
    with plain_server(tiny_repository) as server:
        return endure(server, REQUESTS)


def test_every_request_that_waits_gets_a_right_answer(ordeal: Ordeal) -> None:
    assert ordeal.report.failures == []
    assert ordeal.report.requests == REQUESTS + 2 * STRETCH
    assert ordeal.report.count(load.LEFT) > REQUESTS / 20
    for status in (200, 400, 404, 413, 415, 422, 504):
        assert ordeal.report.count(status) > 0
    assert "Traceback" not in ordeal.log


def test_a_good_request_still_gets_the_right_answer(ordeal: Ordeal) -> None:
    np.testing.assert_allclose(ordeal.after, ordeal.before, atol=1e-5)


def test_the_counts_add_up(ordeal: Ordeal) -> None:
    assert {queue for _, _, queue in ordeal.counts} == {"classify", "explain"}
    for outcomes in ordeal.counts.values():
        assert load.add_up(outcomes)
        assert outcomes["answered"] > 0
        assert outcomes["cancelled"] > 0
        assert outcomes["failed"] == outcomes["refused"] == 0


def test_memory_threads_and_files_are_bounded(ordeal: Ordeal) -> None:
    assert growth(ordeal.footprints) < MAX_GROWTH_BYTES
    half = len(ordeal.footprints) // 2
    for count in ("threads", "files"):
        counts = [getattr(footprint, count) for footprint in ordeal.footprints]
        assert median(counts[half:]) <= median(counts[:half]) + 3


def test_a_server_that_leaks_is_detected(tiny_repository: Path) -> None:
    """The control: a store without a limit, in less than half as many requests."""
    with plain_server(tiny_repository, store_max_bytes=2**40) as server:
        seen = endure(server, REQUESTS * 2 // 5)
    assert seen.report.failures == []
    assert growth(seen.footprints) > MAX_GROWTH_BYTES


def test_a_wrong_status_is_detected(tiny_repository: Path) -> None:
    """The control of the traffic itself: a server that answers nothing as expected."""
    with plain_server(tiny_repository, max_upload_bytes=100) as server, server.client() as client:
        mix = traffic.Traffic(traffic.manifest(client, TINY), ["0" * 32], seed=1)
        report = load.Report()
        asked = [replace(request, leaving=None) for request in islice(mix, 200)]
        send(server, iter(asked), report)
    wrong = sum(200 in request.right for request in asked)
    assert len(report.failures) >= wrong > 100
    assert report.count(200) == 0
