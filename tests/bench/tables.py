"""Tables for the documentation from the figures in docs/bench.

docs/benchmarks.md has places for those of the serving benchmark, between comments such as
`<!-- closed of deepvit16-cifar10 -->` and `<!-- end of closed -->`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import serving_tables
from tests.bench.record import FOLDER, read, table
from tests.support.server import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
_PLACE = re.compile(r"(<!-- (\S+) of (\S+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def show(folder: Path = FOLDER) -> None:
    """Print all tables in Markdown."""
    for path in sorted(folder.glob("*.jsonl")):
        part, _, model = path.stem.partition("-")
        if part not in _TABLES:  # its page is written by hand
            continue
        head, rows = read(part, model, folder)
        machine = head["machine"]
        print(f"\n{part}, {model}: {machine['cores']} cores, {machine['cpu']}, {head['date']}\n")
        print(*_TABLES.get(part, _plain)(rows), sep="\n")


def renew() -> None:
    """Write the tables of the serving benchmark into the documentation."""
    PAGE.write_text(renewed(PAGE.read_text()))


def renewed(page: str, folder: Path = FOLDER) -> str:
    """The page with each place filled from the records."""

    def fill(place: "re.Match[str]") -> str:
        _, rows = read("serving", place[3], folder)
        lines = serving_tables.TABLES[place[2]](rows)
        return "\n".join([place[1], *lines, "", place[4]])

    return _PLACE.sub(fill, page)


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
    if rounded := [row for row in rows if "answers_as_float32" in row]:
        yield ""
        yield from table(
            ["", "answers as float32", "images"],
            [[row["what"], f"{row['answers_as_float32']:.2%}", row["images"]] for row in rounded],
        )
    for row in rows:
        if "skipped" in row:
            yield f"\nNot measured: {row['what']}, batch {row['batch']}: {row['skipped']}"
    costs = [
        [row["what"], row.get("s", ""), row.get("mib", "")]
        for row in rows
        if "s" in row or "mib" in row
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
    "serving": serving_tables.everything,
    "scaling": _scaling,
    "decode": _decode,
}
