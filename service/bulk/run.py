"""One run from its settings to its end: a model, the files that are not done, and their parts."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path

from service.assembly import needs_extra
from service.bulk import files
from service.bulk.columns import Columns, Row, numbers_bytes
from service.bulk.flight import opened
from service.bulk.model import load_model
from service.bulk.parts import Parts
from service.bulk.plan import plan_of
from service.bulk.progress import Progress
from service.bulk.seen import Seen
from service.bulk.settings import BulkSettings
from service.errors import StartupError
from service.inference.served import ServedModel

_MAX_PART_BYTES = 64 * 2**20  # of numbers


def run(settings: BulkSettings) -> int:
    """Exit status 0 once every file has its row, or 128 and the signal that has ended the run.

    Raises `StartupError`, an error of the model, or `NotWritten`; what was done by then is kept.
    """
    _check(settings)
    if settings.ray:
        return _on_ray(settings)
    model = load_model(settings)
    try:
        return answer(settings, model)
    finally:
        model.stop()


def _on_ray(settings: BulkSettings) -> int:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    with needs_extra("--ray needs the packages ray and pandas", "bulk,ray"):
        on_ray = import_module("service.bulk.on_ray")
    status: int = on_ray.run(settings)
    return status


def answer(settings: BulkSettings, model: ServedModel) -> int:
    """The same with a model that is loaded."""
    columns = Columns(model.manifest, settings)
    plan = plan_of(settings, model.manifest, model.precision, columns)
    with closing(Parts(settings.output)) as parts:
        parts.begin(plan)
        return _go_on(settings, model, columns, parts)


def _check(settings: BulkSettings) -> None:
    """Refuse what can be told before the model is loaded. Raises `StartupError`."""
    if settings.ray and "://" in settings.source:
        return
    files.can_be_read_again(settings.source)
    source = Path(settings.source).resolve()
    if source.is_dir() and Path(settings.output).resolve().is_relative_to(source):
        raise StartupError(f"{settings.output} is in the folder that is read: write beside it")


def _go_on(settings: BulkSettings, model: ServedModel, columns: Columns, parts: Parts) -> int:
    progress = Progress()
    with closing(Seen()) as seen:
        progress.go_on_after(parts.done(), seen)
        _count_aside(settings.source, progress)
        paths = seen.new(files.paths(settings.source))
        stopped_by = asyncio.run(_answer(settings, model, columns, parts, paths, progress))
    progress.say(f"{settings.output}: {progress.summary}")
    if stopped_by:
        progress.say(f"stopped by {stopped_by.name}; the same command goes on from here")
        return 128 + stopped_by
    return 0


async def _answer(
    settings: BulkSettings,
    model: ServedModel,
    columns: Columns,
    parts: Parts,
    paths: Iterator[str],
    progress: Progress,
) -> signal.Signals | None:
    """Write a row for each path; the signal that has stopped that."""
    read = partial(files.read, max_bytes=settings.max_file_bytes)
    stop = asyncio.Event()
    signals = _until_signalled(stop)
    progress.start()
    part = _Part(settings.part_images, settings.part_s)
    try:
        with opened(settings, model, columns, read) as flight:
            async for row in flight.rows(paths, stop):
                part.add(row)
                progress.add(row)
                if part.full:
                    await asyncio.to_thread(parts.append, columns.table(part.take()))
    finally:
        if part.rows:
            parts.append(columns.table(part.take()))
    return next(iter(signals), None)


class _Part:
    """Rows that no part has yet."""

    def __init__(self, max_rows: int, max_s: float) -> None:
        self._max_rows = max_rows
        self._max_s = max_s
        self.rows: list[Row] = []
        self._bytes = 0
        self._begun = 0.0

    def add(self, row: Row) -> None:
        if not self.rows:
            self._begun = time.monotonic()
        self.rows.append(row)
        self._bytes += numbers_bytes(row)

    @property
    def full(self) -> bool:
        return (
            len(self.rows) >= self._max_rows
            or self._bytes >= _MAX_PART_BYTES
            or time.monotonic() - self._begun >= self._max_s
        )

    def take(self) -> list[Row]:
        """Sorted by path, and no longer here."""
        rows, self.rows, self._bytes = self.rows, [], 0
        return sorted(rows, key=itemgetter("path"))


def _until_signalled(stop: asyncio.Event) -> list[signal.Signals]:
    """Set `stop` at the first signal, which is then in the list; another one ends the process."""
    loop = asyncio.get_running_loop()
    found: list[signal.Signals] = []

    def note(number: signal.Signals) -> None:
        found.append(number)
        stop.set()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, note, number)
    return found


def _count_aside(source: str, progress: Progress) -> None:
    """Count the files while the first ones are answered, so that the time left can be told."""

    def count() -> None:
        with suppress(StartupError):  # which the run itself raises
            progress.files = sum(1 for _ in files.paths(source))

    if files.can_be_read_again(source):
        threading.Thread(target=count, name="count", daemon=True).start()
