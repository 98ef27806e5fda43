"""The folder that a run writes: numbered Parquet files, each whole or not there, and its plan.

What is in the parts is done; nothing else is remembered. A part is written under a hidden name,
forced to the disk and renamed. Readers of Parquet pass over names that begin with `.` or `_`.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from service.errors import ServiceError, StartupError

PLAN = "_plan.json"
_LOCK = ".lock"
_UNFINISHED = ".unfinished"
_PART = "part-{:06}.parquet"
_PATHS_AT_ONCE = 10_000
_TOLD_LENGTH = 100  # characters of a value that a plan has

Plan = Mapping[str, Any]


class NotWritten(ServiceError):
    """The disk is full, or away."""

    code = "not-written"


class Parts:
    def __init__(self, folder: Path, plan: Plan) -> None:
        """Begin a folder, or go on with one that has the same plan. Raises `StartupError`."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
            self._check_plan(plan)
        except OSError as exc:
            raise StartupError(f"{folder} cannot be written: {exc.strerror}") from exc
        numbers = [int(path.stem.removeprefix("part-")) for path in self.written()]
        self._next = max(numbers, default=-1) + 1

    def written(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def done(self) -> Iterator[tuple[str, str | None]]:
        """The path of every file that is done, and the code of its error. Raises `StartupError`."""
        for path in self.written():
            yield from done(path, path)

    def write(self, table: pa.Table) -> None:
        """One more part. Raises `NotWritten`."""
        try:
            with self._whole(_PART.format(self._next)) as unfinished:
                parquet.write_table(table, unfinished, compression="zstd")
        except (pa.ArrowException, OSError) as exc:
            raise NotWritten(f"a part of {self._folder} cannot be written: {exc}") from exc
        self._next += 1

    def close(self) -> None:
        """Let others write the folder."""
        os.close(self._lock)

    def _check_plan(self, plan: Plan) -> None:
        try:
            check_plan(self._folder, (self._folder / PLAN).read_bytes(), plan)
        except FileNotFoundError:
            if any(not path.name.startswith(".") for path in self._folder.iterdir()):
                raise StartupError(f"{self._folder} has files that no run has written") from None
            with self._whole(PLAN) as unfinished:
                unfinished.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")

    @contextmanager
    def _whole(self, name: str) -> Iterator[Path]:
        """Where to write what then gets its name, or leaves nothing. Raises `OSError`."""
        unfinished = self._folder / f".{name}{_UNFINISHED}"  # one of an earlier run is replaced
        try:
            yield unfinished
            force(unfinished)
            unfinished.rename(self._folder / name)
            force(self._folder)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def done(name: object, part: Any) -> Iterator[tuple[str, str | None]]:
    """The path of each file in a part, and the code of its error. Raises `StartupError`."""
    try:
        with parquet.ParquetFile(part) as file:
            for batch in file.iter_batches(_PATHS_AT_ONCE, columns=["path", "error"]):
                yield from zip(*batch.to_pydict().values(), strict=True)
    except (pa.ArrowException, OSError) as exc:
        reason = " ".join(str(exc).split())
        raise StartupError(
            f"{name} cannot be read; delete it to do its files again: {reason}"
        ) from exc


def check_plan(folder: object, text: bytes, plan: Plan) -> None:
    """Refuse to go on if a folder's plan is another one. Raises `StartupError`."""
    try:
        before = dict(json.loads(text))
    except (ValueError, TypeError) as exc:
        raise StartupError(f"{PLAN} of {folder} is damaged") from exc
    for name in (*plan, *before):
        if before.get(name) != plan.get(name):
            there, here = (json.dumps(one.get(name))[:_TOLD_LENGTH] for one in (before, plan))
            raise StartupError(
                f"{folder} was begun with {name} {there}, and this run has {here}: "
                "write to another folder"
            )


def _locked(folder: Path) -> int:
    """A lock that ends with this process."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupError(f"another run is writing to {folder}") from None
    return lock


def force(path: Path) -> None:
    """To the disk, so that a name never comes before what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
