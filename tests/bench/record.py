"""Files of figures in docs/bench: a JSON line about the machine, then one for each figure."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.machine import machine
from tests.support.server import ROOT

FOLDER = ROOT / "docs" / "bench"


class Record:
    """The file of one part of the benchmark and one model; overwrites an earlier one."""

    def __init__(self, part: str, model: str, folder: Path = FOLDER, **machine_facts: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{part}-{model}.jsonl"
        self._facts = {"part": part, "model": model}
        date = datetime.now(UTC).date().isoformat()
        self._path.write_text(
            json.dumps({"date": date, "machine": machine() | machine_facts}) + "\n"
        )

    def add(self, **figures: Any) -> None:
        line = json.dumps(self._facts | figures)
        with self._path.open("a") as file:
            file.write(line + "\n")


def read(
    part: str, model: str, folder: Path = FOLDER
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The line about the machine and the figures; empty if there is no file."""
    try:
        content = (folder / f"{part}-{model}.jsonl").read_text()
    except FileNotFoundError:
        return {}, []
    head, *figures = map(json.loads, content.splitlines())
    return head, figures


def table(headings: list[str], rows: list[list[Any]]) -> Iterator[str]:
    """Lines of a Markdown table with aligned columns."""
    cells = [headings, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
        if not number:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
