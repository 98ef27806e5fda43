"""Serving: one model over HTTP, ours against servers that a user would write or choose instead.

All servers are started at once and take turns of some seconds, while the others are paused. The
bare graph, in batches of the best size, takes its turn too. Client and server share the machine.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.inference.cpus import available_cpus
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import models
from tests.bench.client import Load, closed_loop, open_loop
from tests.bench.contenders import classifier
from tests.bench.photos import photos
from tests.bench.record import Record, table
from tests.bench.servers import KINDS, OURS, Contestant, Kind, running

CLIENTS = (1, 8, 32, 64)
SHARES = (0.5, 0.8, 1.0, 1.5)  # arrivals relative to our throughput in the closed loop
_SMALL_PX = 64
_TURNS = 3, 4.0  # rounds, and seconds of each turn
_TURNS_OF_LARGE = 2, 10.0  # for networks of tens of images a second
_GRAPH_BATCHES = (1, 4, 8, 16, 32)


def run(
    name: str,
    clients: Sequence[int] = CLIENTS,
    shares: Sequence[float] = SHARES,
    kinds: Sequence[Kind] = KINDS,
) -> None:
    """Print and record throughput, latency and refusals of every server."""
    folder = models.exported(name)
    size = models.manifest(folder).preprocessing.size.side
    jpegs = photos(size)
    rounds, seconds = _TURNS if size <= _SMALL_PX else _TURNS_OF_LARGE
    record = Record("serving", name)
    graph = _Graph(folder)
    with running(folder, kinds) as contestants:
        best = 0.0
        for count in clients:
            loads, bare = _closed(contestants, jpegs, count, rounds, seconds, graph)
            _report_closed(record, count, loads, bare)
            best = max(best, _per_s(loads[OURS]))
        for share in shares:
            found = {
                contestant.kind.name: _open(contestant, jpegs, best * share, seconds)
                for contestant in contestants
            }
            _report_open(record, best * share, found)


def _closed(
    contestants: Sequence[Contestant],
    jpegs: Sequence[bytes],
    clients: int,
    rounds: int,
    seconds: float,
    graph: "_Graph",
) -> tuple[dict[str, list[Load]], float]:
    """The load of every turn by server, and images a second of the bare graph."""
    loads: dict[str, list[Load]] = {contestant.kind.name: [] for contestant in contestants}
    bare = []
    for _ in range(rounds):
        bare.append(graph.per_s(seconds))
        for contestant in contestants:
            loads[contestant.kind.name].append(closed_turn(contestant, jpegs, clients, seconds))
    return loads, statistics.median(bare)


def closed_turn(
    contestant: Contestant, jpegs: Sequence[bytes], clients: int, seconds: float
) -> Load:
    requests = [contestant.kind.request(jpeg) for jpeg in jpegs]
    with contestant.awake():
        before = contestant.cpu_s
        load = closed_loop(contestant.port, requests, clients, seconds)
        load.server_s = contestant.cpu_s - before
    return load


def _open(contestant: Contestant, jpegs: Sequence[bytes], per_s: float, seconds: float) -> Load:
    requests = [contestant.kind.request(jpeg) for jpeg in jpegs]
    with contestant.awake():
        return open_loop(contestant.port, requests, per_s, seconds)


class _Graph:
    """The model without a server."""

    def __init__(self, folder: Path) -> None:
        self._engine = OnnxEngine(folder, EngineOptions(intra_op_threads=available_cpus()))
        self._engine.warm_up()

    def per_s(self, seconds: float) -> float:
        """Images a second at the best batch size."""
        side = self._engine.manifest.preprocessing.size
        best = 0.0
        for batch in _GRAPH_BATCHES:
            run = classifier(self._engine, [np.zeros((*side, 3), np.uint8)] * batch)
            run()
            started = time.perf_counter()
            done = 0
            while (spent := time.perf_counter() - started) < seconds / len(_GRAPH_BATCHES):
                run()
                done += batch
            best = max(best, done / spent)
        return best


def _per_s(loads: Sequence[Load]) -> float:
    return statistics.median(load.per_s for load in loads)


def _report_closed(record: Record, clients: int, loads: dict[str, list[Load]], bare: float) -> None:
    rows: list[list[object]] = []
    ours = _per_s(loads[OURS])
    for server, turns in loads.items():
        figures = {
            "per_s": round(_per_s(turns), 1),
            "p50_ms": round(statistics.median(turn.percentile_ms(50) for turn in turns), 1),
            "p99_ms": round(statistics.median(turn.percentile_ms(99) for turn in turns), 1),
            "efficiency": round(_per_s(turns) / bare, 3),
            "ours_against_it": round(ours / _per_s(turns), 2) if _per_s(turns) else None,
            "server_cpu_ms": round(
                statistics.median(turn.server_s / turn.requests * 1e3 for turn in turns), 3
            ),
            "refused": sum(turn.refused for turn in turns),
            "failed": sum(turn.failed for turn in turns),
            "client_share": round(
                statistics.median(turn.client_s / turn.seconds for turn in turns), 3
            ),
        }
        record.add(loop="closed", clients=clients, server=server, **figures)
        rows.append([server, *figures.values()])
    record.add(loop="closed", clients=clients, server="bare graph", per_s=round(bare, 1))
    print(f"\n{clients} clients; bare graph {bare:.1f} images/s\n")
    headings = ["server", "requests/s", "p50 ms", "p99 ms", "of bare graph", "ours against it"]
    print(
        *table([*headings, "server's CPU ms", "refused", "failed", "client's cores"], rows),
        sep="\n",
        flush=True,
    )


def _report_open(record: Record, per_s: float, loads: dict[str, Load]) -> None:
    rows: list[list[object]] = []
    for server, load in loads.items():
        figures = {
            "answered_per_s": round(load.per_s, 1),
            "p50_ms": load.percentile_ms(50),
            "p95_ms": load.percentile_ms(95),
            "p99_ms": load.percentile_ms(99),
            "refused": load.refused,
            "failed": load.failed,
        }
        record.add(loop="open", arrivals_per_s=round(per_s, 1), server=server, **figures)
        rows.append([server, *figures.values()])
    print(f"\n{per_s:.1f} arrivals/s\n")
    headings = ["server", "answered/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed"]
    print(*table(headings, rows), sep="\n", flush=True)
