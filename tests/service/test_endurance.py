"""Thousands of valid and invalid requests: all are answered, and nothing leaks."""

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
from tests.support.counts import QueueCounts, add_up, settled_queue_counts
from tests.support.memory import Footprint
from tests.support.server import Server, running_command

REQUESTS = 6_000
STRETCH = 250  # requests between two measurements of the server
CLIENTS = 16
REMEMBERED = 10_000  # ids that the store remembers after it has evicted their images
MAX_GROWTH_BYTES = 3 * 2**20  # within half of REQUESTS: 1 KB a request
# By default glibc raises these thresholds while it runs, and so retains ever more freed memory.
FIXED_THRESHOLDS = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass
class Observations:
    """Measurements of a server and its answers."""

    report: load.Report = field(default_factory=load.Report)
    footprints: list[Footprint] = field(default_factory=list)
    counts: QueueCounts = field(default_factory=dict)
    before: list[float] = field(default_factory=list)  # numbers of one answer
    after: list[float] = field(default_factory=list)
    log: str = ""


@contextmanager
def plain_server(repository: Path, **settings: int) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FIXED_THRESHOLDS.items():
            patch.setenv(name, value)
        with running_command(repository, **traffic.SETTINGS | settings) as server:
            yield server


def observe(server: Server, requests: int, remembered: int) -> Observations:
    """Send requests and measure, once everything bounded is full and every session is open."""
    seen = Observations()
    with server.client() as client:
        seen.before = traffic.answer_numbers(client, TINY)
        traffic.fill(client, TINY, remembered)
        mix = iter(traffic.start(client, TINY, seed=1))
        send(server, islice(mix, 8 * STRETCH), seen.report)
        for _ in range(0, requests, STRETCH):
            send(server, islice(mix, STRETCH), seen.report)
            seen.footprints.append(Footprint.of(server.process.pid))
        seen.counts = settled_queue_counts(client)
        seen.after = traffic.answer_numbers(client, TINY)
    seen.log = "".join(server.log)
    return seen


def send(server: Server, requests: Iterator[load.Request], report: load.Report) -> None:
    asyncio.run(load.send(server.url, requests, CLIENTS, report))


def growth(footprints: Sequence[Footprint]) -> int:
    """Bytes by which the minimum of the second half exceeds the minimum of the first half.

    Minima, because large pictures and sessions take memory only for a while.
    """
    sizes = [footprint.resident_bytes for footprint in footprints]
    half = len(sizes) // 2
    return min(sizes[half:]) - min(sizes[:half])


@pytest.fixture(scope="module")
def observed(tiny_repository: Path) -> Observations:
    with plain_server(tiny_repository) as server:
        return observe(server, REQUESTS, REMEMBERED)


def test_every_request_gets_an_expected_answer(observed: Observations) -> None:
    assert observed.report.failures == []
    assert observed.report.requests == REQUESTS + 8 * STRETCH
    assert observed.report.count(load.LEFT) > REQUESTS / 20
    for status in (200, 400, 404, 413, 415, 422, 504):
        assert observed.report.count(status) > 0
    assert "Traceback" not in observed.log


def test_a_valid_request_still_gets_the_same_answer(observed: Observations) -> None:
    np.testing.assert_allclose(observed.after, observed.before, atol=1e-5)


def test_the_counts_add_up(observed: Observations) -> None:
    assert {queue for _, _, queue in observed.counts} == {"classify", "explain"}
    for counts in observed.counts.values():
        assert add_up(counts)
        assert counts["answered"] > 0
        assert counts["failed"] == counts["refused"] == 0
    assert any(counts["cancelled"] for counts in observed.counts.values())


def test_memory_threads_and_files_are_bounded(observed: Observations) -> None:
    assert growth(observed.footprints) < MAX_GROWTH_BYTES
    half = len(observed.footprints) // 2
    for count in ("threads", "files"):
        counts = [getattr(footprint, count) for footprint in observed.footprints]
        assert median(counts[half:]) <= median(counts[:half]) + 3


def test_a_leak_is_found(tiny_repository: Path) -> None:
    """The control: a store without a bound, with a quarter of the requests."""
    with plain_server(tiny_repository, store_max_bytes=2**40) as server:
        seen = observe(server, REQUESTS // 4, remembered=0)
    assert seen.report.failures == []
    assert growth(seen.footprints) > MAX_GROWTH_BYTES


def test_an_unexpected_status_is_found(tiny_repository: Path) -> None:
    """The control of the requests: a server that cannot answer as they expect."""
    with plain_server(tiny_repository, max_upload_bytes=100) as server, server.client() as client:
        mix = traffic.Traffic(traffic.manifest(client, TINY), ["0" * 32], seed=1)
        report = load.Report()
        sent = [replace(request, leaving=None) for request in islice(mix, 200)]
        send(server, iter(sent), report)
    valid = sum(200 in request.expected for request in sent)
    assert len(report.failures) >= valid > 100
    assert report.count(200) == 0
