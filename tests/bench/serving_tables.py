"""Tables and losses of the serving benchmark, from its record, as the documentation shows them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.record import table

Rows = list[dict[str, Any]]
_OURS, _BARE = "ours", "bare graph"


def everything(rows: Rows) -> Iterator[str]:
    """What others do better, set-ups, the closed loop, then every rate of the open loop."""
    for lines in TABLES.values():
        yield from lines(rows)
        yield ""
    for row in rows:
        if "skipped" in row:
            yield f"Not measured: {row.get('setup', row['server'])}: {row['skipped']}"


def _losses(rows: Rows) -> Iterator[str]:
    """A line for each number of clients and each rate: who is ahead of ours, the fastest first."""
    for clients, here in _by(rows, "closed", "clients"):
        ours = _ours(here)["per_s"]
        ahead = sorted((row for row in here if row["per_s"] > ours), key=lambda row: -row["per_s"])
        names = [
            f"{row['server']} {_number(row['per_s'])}, {row['per_s'] / ours:.2f} times"
            for row in ahead
        ]
        load = f"{clients} client{'s' * (clients > 1)}"
        yield f"- {load}, ours {_number(ours)} requests/s: {'; '.join(names) or 'nobody is ahead'}"
    for rate, here in _by(rows, "open", "arrivals_per_s"):
        ours = _ours(here)
        sooner = sorted(
            (row for row in here if _p99_ms(row) < _p99_ms(ours)), key=lambda row: row["p99_ms"]
        )
        names = [f"{row['server']} {row['p99_ms']:,.0f}{_refused(row)}" for row in sooner]
        figures = f"ours {ours['p99_ms']:,.0f} ms for one in a hundred{_refused(ours)}"
        yield f"- {_number(rate)} arrivals/s, {figures}: {'; '.join(names) or 'nobody is sooner'}"


def _setups(rows: Rows) -> Iterator[str]:
    tuned = [row for row in rows if row["loop"] == "tuning" and row.get("best")]
    lines = [[row["server"], row["setup"]] for row in tuned]
    yield from table(["server", "the fastest of its set-ups"], lines)


def _closed_loop(rows: Rows) -> Iterator[str]:
    """Requests a second, and how many times as many ours answers; a column for each number."""
    measured = [row for row in rows if row["loop"] == "closed"]
    clients = sorted({row["clients"] for row in measured})
    found = {(row["server"], row["clients"]): row for row in measured}

    def cell(server: str, count: int) -> str:
        per_s = found[server, count]["per_s"]
        if server in (_OURS, _BARE) or not per_s:
            return _number(per_s)
        return f"{_number(per_s)}, {found[_OURS, count]['per_s'] / per_s:.2g}x"

    lines = []
    for server in dict.fromkeys(row["server"] for row in measured):
        row = found[server, clients[-1]]
        late = f"{row['p50_ms']:,.0f}, {row['p99_ms']:,.0f}" if "p50_ms" in row else ""
        cost = f"{row['server_cpu_ms']:.2f}" if "server_cpu_ms" in row else ""
        lines.append([server, *(cell(server, count) for count in clients), late, cost])
    headings = ["requests/s", *(f"{count} client{'s' * (count > 1)}" for count in clients)]
    yield from table([*headings, "p50, p99 ms", "CPU ms a request"], lines)


def _open_loop(rows: Rows) -> Iterator[str]:
    """p50 and p99 in milliseconds and the share that was refused; a column for each rate."""
    measured = [row for row in rows if row["loop"] == "open"]
    rates = sorted({row["arrivals_per_s"] for row in measured})
    found = {(row["server"], row["arrivals_per_s"]): row for row in measured}
    lines = [
        [server, *(_late(found.get((server, rate))) for rate in rates)]
        for server in dict.fromkeys(row["server"] for row in measured)
    ]
    yield from table(["p50, p99 ms", *(f"{_number(rate)} arrivals/s" for rate in rates)], lines)


TABLES: dict[str, Callable[[Rows], Iterator[str]]] = {
    "losses": _losses,
    "setups": _setups,
    "closed": _closed_loop,
    "open": _open_loop,
}


def _by(rows: Rows, loop: str, given: str) -> Iterator[tuple[Any, Rows]]:
    """The servers' rows of a loop for each value of what was given, in order."""
    measured = [row for row in rows if row["loop"] == loop and row["server"] != _BARE]
    for value in sorted({row[given] for row in measured}):
        yield value, [row for row in measured if row[given] == value]


def _number(per_s: float) -> str:
    return f"{per_s:.1f}" if per_s < 100 else f"{per_s:,.0f}"


def _ours(rows: Rows) -> dict[str, Any]:
    return next(row for row in rows if row["server"] == _OURS)


def _p99_ms(row: dict[str, Any]) -> float:
    """Without an answer it is not a number, and later than any."""
    return math.inf if math.isnan(row["p99_ms"]) else float(row["p99_ms"])


def _late(row: dict[str, Any] | None) -> str:
    if row is None:  # the run ended before
        return ""
    if math.isnan(row["p50_ms"]):
        return "no answer"
    failed = f", {row['failed']} failed" if row["failed"] else ""
    return f"{row['p50_ms']:,.0f}, {row['p99_ms']:,.0f}{_refused(row)}{failed}"


def _refused(row: dict[str, Any]) -> str:
    share = row["refused_share"]
    return f", {share:.0%} refused" if share >= 0.01 else ", few refused" if share else ""
