"""`python -m export report --model NAME --images FOLDER`: what attention does over many images."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from export.options import report_parser
from export.pictures import Pictures
from export.progress import Progress, Throttle
from export.report import ReportError, page, tables
from export.report.measuring import Model
from export.report.tables import Report

_PROGRESS_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, or 1 with one line that says what to do."""
    options = report_parser().parse_args(arguments)
    try:
        written = report(options, shlex.join(["python", "-m", "export", "report", *arguments]))
    except (ReportError, OSError) as exc:
        print(f"export report: {exc}", file=sys.stderr)
        return 1
    print(written)
    return 0


def report(options: argparse.Namespace, command: str) -> Path:
    """Measure and write a report; returns the page that was written."""
    names = list(dict.fromkeys(options.model))
    models = [Model(options.repository, name, options.threshold) for name in names]
    pictures = Pictures(options.images, options.limit)
    options.output.mkdir(parents=True, exist_ok=True)
    _measure(models, pictures)
    found = Report(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        threshold=options.threshold,
        pictures=pictures,
        models=tuple(model.finish() for model in models),
    )
    tables.save(found, options.output)
    page.save(found, options.output)
    for (name, _), verdict in found.verdicts.items():
        print(f"{name}: {' '.join(verdict.sentences)}", file=sys.stderr)
    return Path(options.output, "report.html")


def _measure(models: Sequence[Model], pictures: Pictures) -> None:
    say = Progress()
    progress = Throttle(say, _PROGRESS_S)
    for picture in pictures:
        for model in models:
            model.add(picture.image)
        progress(pictures.progress)
    say(pictures.progress)
    if pictures.unreadable:
        say.detail(f"{pictures.unreadable} unreadable files: {', '.join(pictures.named)}")
