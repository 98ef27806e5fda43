"""The cost of the monitor: a server that measures a share of its answers beside one that does not.

Both take turns of some seconds while the other is paused. Each runs its model on one thread: with
more, a server measures at its start how batches run fastest, and two may decide differently. In the
closed loop the model is never without work for long; in the open loop requests come at random
times, at half of that throughput.
"""

import json
import statistics
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence

from tests.bench import models
from tests.bench.client import Load, closed_loop, open_loop
from tests.bench.photos import photos
from tests.bench.record import Record, table
from tests.bench.servers import OURS_MODULE, Contestant, Kind, running
from tests.support.waiting import until

_SHARES = (0, 0.01, 1)
_CLIENTS = (1, 32)
_ROUNDS, _SECONDS = 6, 5.0
_HEADINGS = ["load", "share", "answers/s", "of those without", "p50 ms", "p99 ms", "measured"]


def run(
    name: str,
    clients: Sequence[int] = _CLIENTS,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
) -> None:
    """Print and record throughput and latency for each share."""
    folder = models.exported(name)
    jpegs = photos(models.manifest(folder).preprocessing.size.side)
    kinds = [
        Kind(
            f"{share:g}",
            OURS_MODULE,
            ("--monitor-sample", str(share), "--intra-op-threads", "1"),
            "/classify",
        )
        for share in _SHARES
    ]
    requests = [kinds[0].request(jpeg) for jpeg in jpegs]
    record = Record("monitor", name)
    rows: list[list[object]] = []
    with running(folder, kinds) as contestants:

        def measure(what: str, load: Callable[[int], Load]) -> float:
            """Throughput without the monitor."""
            turns = [{one: _turn(one, load) for one in contestants} for _ in range(rounds)]
            first = contestants[0]
            for one in contestants:
                figures = _figures([turn[one] for turn in turns], [turn[first] for turn in turns])
                record.add(load=what, share=float(one.kind.name), **figures)
                rows.append([what, one.kind.name, *figures.values()])
            return statistics.median(turn[first][0].per_s for turn in turns)

        for count in clients:
            best = measure(
                f"{count} clients",
                lambda port, count=count: closed_loop(port, requests, count, seconds),  # type: ignore[misc]
            )
        measure("half of that", lambda port: open_loop(port, requests, best / 2, seconds))
    print(*table(_HEADINGS, rows), sep="\n", flush=True)


def _turn(contestant: Contestant, load: Callable[[int], Load]) -> tuple[Load, int]:
    """The load, and how many images were measured meanwhile."""
    with contestant.awake():
        before = _samples(contestant.port)["measured"]
        found = load(contestant.port)
        measured = _samples(contestant.port)["measured"] - before
        # An image that is measured while the server is paused would seem to take that long.
        until(lambda: not _samples(contestant.port)["waiting"])
        return found, measured


def _samples(port: int) -> Counter[str]:
    """Images by what became of them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/monitor") as answer:
        found = json.load(answer)["models"]
    return sum((Counter(one["samples"]) for one in found), Counter())


def _figures(
    turns: Sequence[tuple[Load, int]], without: Sequence[tuple[Load, int]]
) -> dict[str, float]:
    loads = [load for load, _ in turns]
    ratios = [load.per_s / plain.per_s for load, (plain, _) in zip(loads, without, strict=True)]
    return {
        "per_s": round(statistics.median(load.per_s for load in loads), 1),
        "ratio": round(statistics.median(ratios), 4),
        "p50_ms": round(statistics.median(load.percentile_ms(50) for load in loads), 2),
        "p99_ms": round(statistics.median(load.percentile_ms(99) for load in loads), 2),
        "measured": sum(measured for _, measured in turns),
    }
