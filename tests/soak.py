"""`make soak`: minutes of mixed requests to the bundled models while versions are replaced.

Prints the requests by kind with statuses and latencies, and the memory, threads and files of the
server. Exits with status 1 if a request got an unexpected answer, if the counts of images do not
add up, or if the same request is answered differently at the end than at the start.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from service.inference.cpus import available_cpus
from service.telemetry.metrics import IMAGE_OUTCOMES
from tests.conftest import BUNDLED
from tests.support import load, traffic
from tests.support.counts import QueueCounts, add_up, settled_queue_counts
from tests.support.load import Request
from tests.support.memory import Footprint
from tests.support.server import ROOT, Server, running_server
from tests.support.traffic import Traffic
from tests.support.versions import add_version

DEEPVIT, VIT = BUNDLED
_SETTINGS = traffic.SETTINGS | {
    "intra_op_threads": available_cpus(),
    "max_queue_images": 64,  # small enough that some requests are refused
    "served_versions": 2,
}
_PAUSE_S = 5  # between two changes of what is served
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=16, help="concurrent connections")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random requests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        shutil.copytree(ROOT / "model_repository", repository)
        with running_server(repository, **_SETTINGS) as server, server.client() as client:
            print(f"{DEEPVIT} and {VIT}, {options.clients} clients, seed {options.seed}")
            run = _Run(server, repository)
            run.note("start")
            before = traffic.answer_numbers(client, DEEPVIT)
            requests = traffic.start(client, DEEPVIT, options.seed, may_refuse=True, may_miss=[VIT])
            asyncio.run(run.send(requests, options.clients, options.seconds))
            counts = settled_queue_counts(client)
            run.note("end")
            same = np.allclose(traffic.answer_numbers(client, DEEPVIT), before, atol=1e-5)
    _print_requests(run.report, options.seconds)
    complete = _print_counts(counts)
    print(f"the same request gets {'the same' if same else 'ANOTHER'} answer as at the start")
    print(f"failures: {len(run.report.failures)}")
    for failure in run.report.failures[:20]:
        print(f"  {failure}")
    return 0 if same and complete and not run.report.failures else 1


class _Run:
    """Sends requests, changes what is served and measures the server, all at the same time."""

    def __init__(self, server: Server, repository: Path) -> None:
        self.report = load.Report()
        self._server = server
        self._repository = repository

    def note(self, when: str) -> None:
        footprint = Footprint.of(self._server.process.pid)
        print(
            f"{when:>8}  {footprint.resident_bytes / _MIB:6.1f} MiB resident  "
            f"{footprint.threads:3} threads  {footprint.files:3} files",
            flush=True,
        )

    async def send(self, requests: Traffic, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        measuring = asyncio.create_task(self._measure())
        changing = asyncio.create_task(self._change(end))
        await load.send(self._server.url, _until(end, requests), clients, self.report)
        measuring.cancel()
        await changing

    async def _measure(self) -> None:
        """Print the footprint after a warm-up of twenty seconds and after every minute."""
        await asyncio.sleep(20)
        self.note("warm")
        await asyncio.sleep(40)
        for minute in range(1, 1000):
            self.note(f"{minute} min")
            await asyncio.sleep(60)

    async def _change(self, end: float) -> None:
        """Unload and load one model, then add and remove a version of the other, until the end."""
        async with httpx.AsyncClient(base_url=self._server.url, timeout=60) as client:
            while time.monotonic() < end:
                await self._ask(client, VIT, "unload")
                await self._ask(client, VIT, "load")
                version = await asyncio.to_thread(add_version, self._repository, self._repository)
                await self._ask(client, DEEPVIT, "load")
                await asyncio.to_thread(shutil.rmtree, version)
                await self._ask(client, DEEPVIT, "load")

    async def _ask(self, client: httpx.AsyncClient, model: str, what: str) -> None:
        """Request one change, then give the other requests some time with it."""
        request = Request("load or unload", f"/v2/repository/models/{model}/{what}", b"")
        started = time.perf_counter()
        answer = await client.post(request.target)
        seconds = time.perf_counter() - started
        self.report.add(request, answer.status_code, seconds, answer.content)
        await asyncio.sleep(_PAUSE_S)


def _until(end: float, requests: Traffic) -> Iterator[Request]:
    for request in requests:
        if time.monotonic() > end:
            return
        yield request


def _print_requests(report: load.Report, seconds: float) -> None:
    print(f"\n{report.requests} requests, {report.requests / seconds:.0f} a second")
    print(f"refused {report.count(429)}, too late {report.count(504)}, left {report.count('left')}")
    print(f"\n{'requests':32}{'count':>7}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}  statuses")
    for kind, tally in sorted(report.kinds.items()):
        times = ""
        if tally.seconds:
            quantiles = np.percentile(tally.seconds, [50, 95, 99]) * 1e3
            times = "".join(f"{value:9.1f}" for value in quantiles)
        statuses = ", ".join(f"{status}: {n}" for status, n in tally.statuses.most_common())
        print(f"{kind:32}{tally.statuses.total():7}{times:>27}  {statuses}")


def _print_counts(counts: QueueCounts) -> bool:
    """Print images by queue and outcome; whether the counts of every queue add up."""
    print(f"\n{'images by queue':40}" + "".join(f"{outcome:>10}" for outcome in IMAGE_OUTCOMES))
    for queue, images in counts.items():
        note = "" if add_up(images) else "  DO NOT ADD UP"
        print(
            f"{' '.join(queue):40}"
            + "".join(f"{images[name]:10}" for name in IMAGE_OUTCOMES)
            + note
        )
    return all(map(add_up, counts.values()))


if __name__ == "__main__":
    sys.exit(main())
