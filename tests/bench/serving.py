"""Serving: one model over HTTP, ours against servers that a user would write or choose instead.

Every server takes the same request, a JPEG as the body, and answers the same classes, or is not
measured. Peers run in the fastest of their set-ups (`tuning`), and a second time with our kernels;
ours has its defaults. All are started at once and take turns, while the others are paused. The bare
graph takes its turn too. Client and server share the machine.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.inference.cpus import available_cpus
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import environments, models, serving_tables
from tests.bench.client import Load, closed_loop, open_loop
from tests.bench.contenders import classifier
from tests.bench.lineup import SERVICE
from tests.bench.photos import photos
from tests.bench.record import Record, read
from tests.bench.servers import Contestant, NotServing, alone_awake, check, running
from tests.bench.tuning import fastest

SHARES = (0.5, 0.8, 1.0, 1.5)  # arrivals relative to the highest throughput in the closed loop
_SMALL_PX = 64
_GRAPH_BATCHES = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class _Plan:
    """How long everything takes, besides a warm-up for each turn."""

    clients: tuple[int, ...]
    rounds: int
    turn_s: float
    tuning_rounds: int
    tuning_s: float


_PLAN = _Plan((1, 8, 32), rounds=2, turn_s=3, tuning_rounds=2, tuning_s=1)
_PLAN_OF_LARGE = _Plan((1, 32), rounds=1, turn_s=5, tuning_rounds=1, tuning_s=3)
_QUICK = _Plan((1, 32), rounds=1, turn_s=2, tuning_rounds=1, tuning_s=1)


def run(name: str, quick: bool = False) -> None:
    """Print and record set-ups, throughput, latency and refusals of every server."""
    folder = models.exported(name)
    size = models.manifest(folder).preprocessing.size.side
    jpegs = photos(size)
    plan = _QUICK if quick else _PLAN if size <= _SMALL_PX else _PLAN_OF_LARGE
    record = Record("serving", name, peers=f"{environments.BENTOML}, {environments.TRITON}")
    graph = _Graph(folder)
    with running(folder, [SERVICE]) as (ours,):
        with ours.awake():
            expected = ours.first_answers(jpegs)
        peers = fastest(folder, jpegs, expected, plan.tuning_rounds, plan.tuning_s, record)
        skipped: dict[str, str] = {}
        with running(folder, peers, skipped) as others:
            contestants = [ours, *_right(others, jpegs, expected, skipped)]
            for what, reason in skipped.items():
                record.add(loop="check", server=what, skipped=reason)
            rates = [
                _closed(contestants, jpegs, count, plan, graph, record) for count in plan.clients
            ]
            for share in SHARES:
                _open(contestants, jpegs, max(rates) * share, plan.turn_s, record)
    print(*serving_tables.everything(read("serving", name)[1]), sep="\n", flush=True)


def _right(
    contestants: Sequence[Contestant],
    jpegs: Sequence[bytes],
    expected: Sequence[tuple[str, float]],
    skipped: dict[str, str],
) -> list[Contestant]:
    """Those that answer every image as expected; a row that answers wrong is no row."""
    found = []
    for contestant in contestants:
        try:
            check(contestant, expected, jpegs)
            found.append(contestant)
        except (NotServing, OSError) as exc:
            skipped[contestant.kind.name] = str(exc)
    return found


def _closed(
    contestants: Sequence[Contestant],
    jpegs: Sequence[bytes],
    clients: int,
    plan: _Plan,
    graph: "_Graph",
    record: Record,
) -> float:
    """Records every server's turns; the highest throughput of all."""
    loads: dict[str, list[Load]] = {contestant.kind.name: [] for contestant in contestants}
    bare = []
    for _ in range(plan.rounds):
        bare.append(graph.per_s(plan.turn_s))
        for contestant in contestants:
            turn = _turn(
                contestant,
                contestants,
                jpegs,
                lambda port, requests: closed_loop(port, requests, clients, plan.turn_s),
            )
            loads[contestant.kind.name].append(turn)
    best = 0.0
    for server, turns in loads.items():
        per_s = statistics.median(turn.per_s for turn in turns)
        best = max(best, per_s)
        record.add(
            loop="closed",
            clients=clients,
            server=server,
            per_s=round(per_s, 1),
            p50_ms=round(statistics.median(turn.percentile_ms(50) for turn in turns), 1),
            p99_ms=round(statistics.median(turn.percentile_ms(99) for turn in turns), 1),
            server_cpu_ms=_median(turns, lambda turn: turn.server_s / max(1, turn.requests) * 1e3),
            client_cores=_median(turns, lambda turn: turn.client_s / turn.seconds),
            refused=sum(turn.refused for turn in turns),
            failed=sum(turn.failed for turn in turns),
        )
    per_s = round(statistics.median(bare), 1)
    record.add(loop="closed", clients=clients, server="bare graph", per_s=per_s)
    return best


def _open(
    contestants: Sequence[Contestant],
    jpegs: Sequence[bytes],
    per_s: float,
    seconds: float,
    record: Record,
) -> None:
    for contestant in contestants:
        load = _turn(
            contestant,
            contestants,
            jpegs,
            lambda port, requests: open_loop(port, requests, per_s, seconds),
        )
        record.add(
            loop="open",
            arrivals_per_s=round(per_s, 1),
            server=contestant.kind.name,
            answered_per_s=round(load.per_s, 1),
            p50_ms=load.percentile_ms(50),
            p95_ms=load.percentile_ms(95),
            p99_ms=load.percentile_ms(99),
            refused_share=round(load.refused / max(1, load.statuses.total()), 4),
            failed=load.failed,
        )


def _turn(
    contestant: Contestant,
    contestants: Sequence[Contestant],
    jpegs: Sequence[bytes],
    load: Callable[[int, Sequence[bytes]], Load],
) -> Load:
    requests = [contestant.kind.request(jpeg) for jpeg in jpegs]
    with alone_awake(contestant, contestants):
        before = contestant.cpu_s
        found = load(contestant.port, requests)
        found.server_s = contestant.cpu_s - before
    return found


def _median(turns: Sequence[Load], figure: Callable[[Load], float]) -> float:
    return round(statistics.median(figure(turn) for turn in turns), 3)


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
