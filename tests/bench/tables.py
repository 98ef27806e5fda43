"""Tables for the documentation from the figures in docs/bench."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.record import FOLDER, read, table

_CLIENTS = 32


def show(folder: Path = FOLDER) -> None:
    """Print all tables in Markdown."""
    for path in sorted(folder.glob("*.jsonl")):
        part, _, model = path.stem.partition("-")
        head, rows = read(part, model, folder)
        machine = head["machine"]
        print(f"\n{part}, {model}: {machine['cores']} cores, {machine['cpu']}, {head['date']}\n")
        print(*_TABLES.get(part, _plain)(rows), sep="\n")


def _graph(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Time of an image and its ratio to PyTorch, with a column for each batch size."""
    timed = [row for row in rows if "times_eager" in row]
    batches = sorted({row["batch"] for row in timed})
    found = {
        (row["what"], row["batch"]): f"{row['ms_per_image']} ms, {row['times_eager']}x"
        for row in timed
    }
    names = list(dict.fromkeys(row["what"] for row in timed))
    headings = ["", *(f"batch {batch}" for batch in batches)]
    yield from table(
        headings, [[name, *(found.get((name, b), "") for b in batches)] for name in names]
    )
    for row in rows:
        if "skipped" in row:
            yield f"\nNot measured: {row['what']}, batch {row['batch']}: {row['skipped']}"
    costs = [
        [row["what"], row.get("s", ""), row.get("mib", "")] for row in rows if "batch" not in row
    ]
    if costs:
        yield ""
        yield from table(["", "s", "MiB"], costs)


def _profile(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Time of each operator in each graph."""
    graphs = dict.fromkeys(row["what"] for row in rows)
    yield from by_graph(
        {
            graph: {row["operator"]: row["ms"] for row in rows if row["what"] == graph}
            for graph in graphs
        }
    )


def by_graph(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """Milliseconds: a row for each operator and one for their sum, a column for each graph."""
    operators = dict.fromkeys(name for column in found.values() for name in column)
    rows = [
        [operator, *(round(column.get(operator, 0), 3) for column in found.values())]
        for operator in operators
    ]
    rows.append(["all", *(round(sum(column.values()), 3) for column in found.values())])
    yield from table(["operator", *found], rows)


def _serving(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The closed loop in detail for one number of clients, then for all, then the open loop."""
    closed = [row for row in rows if row["loop"] == "closed" and row["server"] != "bare graph"]
    clients = sorted({row["clients"] for row in closed})
    names = list(dict.fromkeys(row["server"] for row in closed))
    at = {row["server"]: row for row in closed if row["clients"] == _CLIENTS}
    yield from table(
        [
            f"{_CLIENTS} clients",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "of bare graph",
            "ours against it",
        ],
        [
            [
                name,
                *(
                    row[key]
                    for key in ("per_s", "p50_ms", "p99_ms", "efficiency", "ours_against_it")
                ),
            ]
            for name, row in at.items()
        ],
    )
    yield ""
    found = {(row["server"], row["clients"]): row["per_s"] for row in closed}
    headings = ["requests/s by clients", *map(str, clients)]
    yield from table(
        headings, [[name, *(found.get((name, c), "") for c in clients)] for name in names]
    )
    yield ""
    keys = ("answered_per_s", "p50_ms", "p95_ms", "p99_ms", "refused", "failed")
    opened = [row for row in rows if row["loop"] == "open"]
    yield from table(
        ["arrivals/s", "server", "answered/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed"],
        [[row["arrivals_per_s"], row["server"], *(row[key] for key in keys)] for row in opened],
    )


def _scaling(rows: list[dict[str, Any]]) -> Iterator[str]:
    keys = ("architecture", "batch", "px", "blocks", "ms_per_image")
    yield from table(["", *keys[1:-1], "ms an image"], [[row[key] for key in keys] for row in rows])


def _decode(rows: list[dict[str, Any]]) -> Iterator[str]:
    figures = (f"{row['ms']} ms" if "ms" in row else f"{row['share']:.2%}" for row in rows)
    yield from table(
        ["", ""], [[row["what"], figure] for row, figure in zip(rows, figures, strict=True)]
    )


def _plain(rows: list[dict[str, Any]]) -> Iterator[str]:
    """All figures as they are, a table for each set of names."""
    for names in dict.fromkeys(tuple(row) for row in rows):
        shown = [name for name in names if name not in ("part", "model")]
        yield ""
        alike = [row for row in rows if tuple(row) == names]
        yield from table(shown, [[row[name] for name in shown] for row in alike])


_TABLES = {
    "graph": _graph,
    "gpu": _graph,
    "profile": _profile,
    "serving": _serving,
    "scaling": _scaling,
    "decode": _decode,
}
