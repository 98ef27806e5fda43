"""`python -m export report --model NAME --images FOLDER`: what attention does over many images."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from export.pictures import Pictures
from export.report import ReportError, page, tables
from export.report.measuring import Model
from export.report.tables import Report
from models.collapse import THRESHOLD

_PROGRESS_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, or 1 with one line that says what to do."""
    options = _parser().parse_args(arguments)
    try:
        written = report(options, shlex.join(["python", "-m", "export", "report", *arguments]))
    except (ReportError, OSError) as exc:
        print(f"export report: {exc}", file=sys.stderr)
        return 1
    print(written)
    return 0


def report(options: argparse.Namespace, command: str) -> Path:
    """Measure and write; the page that was written."""
    names = list(dict.fromkeys(options.model))
    models = [Model(options.repository, name, options.threshold) for name in names]
    pictures = Pictures(options.images, options.limit)
    options.output.mkdir(parents=True, exist_ok=True)
    progress = _Progress(pictures)
    for picture in pictures:
        for model in models:
            model.add(picture.image)
        progress()
    measured = tuple(model.finish() for model in models)
    progress.end()
    found = Report(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        threshold=options.threshold,
        pictures=pictures,
        models=measured,
    )
    tables.save(found, options.output)
    page.save(found, options.output)
    for (name, _), verdict in found.verdicts.items():
        print(f"{name}: {' '.join(verdict.sentences)}", file=sys.stderr)
    return Path(options.output, "report.html")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export report", description=__doc__)
    parser.add_argument(
        "--model", action="append", required=True, help="an exported model; again for another"
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder, searched throughout")
    parser.add_argument(
        "--limit", type=_positive, help="images at most, evenly spread over the sorted paths"
    )
    parser.add_argument("--threshold", type=_threshold, default=THRESHOLD, help="of similar blocks")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--output", type=Path, default=Path("report"), help="a folder")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("a number between 0 and 1")
    return value


class _Progress:
    """Images so far, once a second, on standard error."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._start = self._said = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._said >= _PROGRESS_S:
            self._say()

    def end(self) -> None:
        self._say()
        if self._pictures.unreadable:
            named = ", ".join(self._pictures.named)
            print(f"{self._pictures.unreadable} files not readable: {named}", file=sys.stderr)

    def _say(self) -> None:
        self._said = time.perf_counter()
        read, chosen = self._pictures.read, self._pictures.chosen
        seconds = self._said - self._start
        print(f"[{seconds:5.1f} s] {read:,} of {chosen:,} images", file=sys.stderr, flush=True)
