"""Finds the set-up of each peer that answers the most requests in the closed loop.

All set-ups of one peer take turns, and all peers get the same time for each of theirs.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.client import closed_loop
from tests.bench.environments import CannotInstall
from tests.bench.lineup import ENTRIES, Entry, with_kernels
from tests.bench.record import Record
from tests.bench.servers import Contestant, Kind, NotServing, alone_awake, check, running

CLIENTS = 32
_CHECKED = 4  # images of each set-up; all of the images are checked before the benchmark


def fastest(
    folder: Path,
    jpegs: Sequence[bytes],
    expected: Sequence[tuple[str, float]],
    rounds: int,
    seconds: float,
    record: Record,
) -> list[Kind]:
    """Every peer in its fastest set-up, followed by the same one with our kernels.

    Records each set-up's requests a second, and prints the fastest and who cannot take part.
    """
    found: list[Kind] = []
    for entry in ENTRIES:
        name = entry.kind.name
        skipped: dict[str, str] = {}
        try:
            rates = _rates(entry, folder, jpegs, expected, rounds, seconds, skipped)
        except CannotInstall as exc:
            rates, skipped = {}, {name: str(exc)}
        for what, reason in skipped.items():
            record.add(loop="tuning", server=name, setup=what, skipped=reason)
            print(f"not measured: {what}: {reason}", flush=True)
        if not rates:
            continue
        best = max(rates, key=lambda kind: rates[kind])
        print(f"{best.name} ({rates[best]} requests/s)", flush=True)
        for kind, rate in rates.items():
            record.add(
                loop="tuning",
                server=name,
                setup=str(kind.setup),
                per_s=rate,
                best=kind is best,
            )
        kind = replace(best, name=name)
        found.append(kind)
        if not entry.runs_onnx:
            continue
        if other := with_kernels(kind):
            found.append(other)
        else:
            print(f"not measured: {name} with our kernels, which are not compiled", flush=True)
    return found


def _rates(
    entry: Entry,
    folder: Path,
    jpegs: Sequence[bytes],
    expected: Sequence[tuple[str, float]],
    rounds: int,
    seconds: float,
    skipped: dict[str, str],
) -> dict[Kind, float]:
    """Requests a second of each set-up that starts and answers as ours. Raises `CannotInstall`."""
    turns: dict[Kind, list[float]] = {}
    with running(folder, entry.kinds(), skipped) as contestants:
        right = [one for one in contestants if _is_right(one, jpegs, expected, skipped)]
        for _ in range(rounds):
            for one in right:
                turns.setdefault(one.kind, []).append(_rate(one, right, jpegs, seconds))
    return {kind: round(statistics.median(rates), 1) for kind, rates in turns.items()}


def _is_right(
    contestant: Contestant,
    jpegs: Sequence[bytes],
    expected: Sequence[tuple[str, float]],
    skipped: dict[str, str],
) -> bool:
    try:
        check(contestant, expected[:_CHECKED], jpegs[:_CHECKED])
    except (NotServing, OSError) as exc:
        skipped[contestant.kind.name] = str(exc)
    return contestant.kind.name not in skipped


def _rate(
    contestant: Contestant, others: Sequence[Contestant], jpegs: Sequence[bytes], seconds: float
) -> float:
    requests = [contestant.kind.request(jpeg) for jpeg in jpegs]
    with alone_awake(contestant, others):
        return closed_loop(contestant.port, requests, CLIENTS, seconds).per_s
