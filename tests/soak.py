"""`make soak`: minutes of mixed requests while versions are replaced and attackers do their worst.

Prints the requests by kind with statuses and latencies, what the attackers met (attackers.py), and
the memory, threads and files of the server. Exits with status 1 if a request got an unexpected
answer, if the counts of images do not add up, if the same request is answered differently at the
end than at the start, or if the server and its processes took more memory than is stated.
"""

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import httpx
import numpy as np

from models.imaging import MAX_PIXELS
from service.inference.cpus import available_cpus
from service.telemetry.metrics import IMAGE_OUTCOMES
from tests.conftest import BUNDLED
from tests.service.oip.grpc.calls import address
from tests.support import load, traffic
from tests.support.counts import QueueCounts, add_up, settled_queue_counts
from tests.support.load import Request
from tests.support.memory import Footprint, processes_under, resident_bytes
from tests.support.server import ROOT, Server, running_command
from tests.support.traffic import Traffic
from tests.support.versions import add_version

DEEPVIT, VIT = BUNDLED
_SETTINGS = traffic.SETTINGS | {
    "intra_op_threads": available_cpus(),
    "max_queue_images": 64,  # small enough that some requests are refused
    "served_versions": 2,
    "store_max_bytes": 32 * 2**20,  # some 800 images
    "max_inflight_bytes": 32 * 2**20,
    "max_unsent_bytes": 128 * 2**20,
    "image_formats": "all",
    "decode_threads": 2,
}
# As operations.md adds it up: models and Python, inputs that are kept, uploads and unread answers,
# processes that decode.
_DECODERS = 2
_ALLOWED_BYTES = 600 * 2**20 + (32 + 128) * 2**20 + _DECODERS * (128 * 2**20 + 24 * MAX_PIXELS)
_PAUSE_S = 5  # between two changes of what is served
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--peaceful", action="store_true", help="no attackers")
    parser.add_argument("--clients", type=int, default=16, help="concurrent connections")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random requests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        shutil.copytree(ROOT / "model_repository", repository)
        with (
            running_command(repository, grpc_port=0, **_SETTINGS) as server,
            server.client() as client,
            _attackers(server, 0 if options.peaceful else options.seconds),
        ):
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
    print(f"most memory: {run.most_bytes / _MIB:.0f} MiB of {_ALLOWED_BYTES / _MIB:.0f}")
    bounded = run.most_bytes < _ALLOWED_BYTES
    return 0 if same and complete and bounded and not run.report.failures else 1


@contextmanager
def _attackers(server: Server, seconds: float) -> Iterator[None]:
    """Attack while the block runs, and print what came of it."""
    if not seconds:
        yield
        return
    command = [sys.executable, "-m", "tests.attackers", server.url, "--grpc", address(server)]
    process = Popen([*command, "--seconds", str(seconds)], cwd=ROOT, stdout=PIPE, text=True)
    try:
        yield
        print(f"\n{process.communicate()[0]}")
    finally:
        process.kill()
        process.wait()


class _Run:
    """Sends requests, changes what is served and measures the server, all at the same time."""

    def __init__(self, server: Server, repository: Path) -> None:
        self.report = load.Report()
        self.most_bytes = 0
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
        pid = self._server.process.pid
        for second in itertools.count():
            processes = {pid, *processes_under(pid)}
            self.most_bytes = max(self.most_bytes, sum(map(resident_bytes, processes)))
            if second == 20 or (second and second % 60 == 0):
                self.note(f"{second} s")
            await asyncio.sleep(1)

    async def _change(self, end: float) -> None:
        """Unload and load one model, then add and remove a version of the other, until the end."""
        async with httpx.AsyncClient(base_url=self._server.url, timeout=60) as client:
            while time.monotonic() < end:
                await self._ask(client, VIT, "unload")
                await self._ask(client, VIT, "load")
                version = await asyncio.to_thread(
                    add_version, self._repository, self._repository, model=DEEPVIT
                )
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
