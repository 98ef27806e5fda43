"""The folder that a run writes: Parquet files, each whole or not there, and the run's plan.

What is in the parts is done; nothing else is remembered. On a disk a part is written under a hidden
name, forced to the disk and renamed; stores show an object once it is whole. Readers of Parquet
pass over names that begin with `.` or `_`.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs, parquet

from service.bulk.addresses import is_address, or_refuse, reason, resolved
from service.errors import StartupError

_PLAN = "_plan.json"
_LOCK = ".lock"
_PREFIX, _SUFFIX = "part-", ".parquet"
_PATHS_AT_ONCE = 10_000
_TOLD_LENGTH = 100  # characters of a value that a plan has

Plan = Mapping[str, Any]


class NotWritten(StartupError):
    """The disk is full, or away."""


class Parts:
    """On this machine or in an object store; several processes may write parts of one run."""

    def __init__(self, address: str) -> None:
        """Raises `StartupError`."""
        self._address = address
        place = address if is_address(address) else str(Path(address).absolute())
        self._system, self._folder = or_refuse(address, lambda: resolved(place))
        self._local = isinstance(self._system, fs.LocalFileSystem)
        self._lock: int | None = None
        self._next = 0

    def begin(self, plan: Plan) -> None:
        """Begin the folder, or go on with one that has the same plan; the only run that does.

        Raises `StartupError`. Stores have no locks: there two runs may write to one folder.
        """
        try:
            self._system.create_dir(self._folder, recursive=True)
            if self._local:
                self._lock = _locked(Path(self._folder))
            self._check_plan(plan)
        except (pa.ArrowException, OSError) as exc:
            raise StartupError(f"{self._address} cannot be written: {reason(exc)}") from exc
        self._next = 1 + max((int(name) for name in self._names() if name.isdecimal()), default=-1)

    def done(self) -> Iterator[tuple[str, str | None]]:
        """The path of every file that is done, and the code of its error. Raises `StartupError`."""
        for name in self._names():
            place = f"{self._folder}/{_PREFIX}{name}{_SUFFIX}"
            yield from _done(place, or_refuse(place, partial(self._system.open_input_file, place)))

    def append(self, table: pa.Table) -> None:
        """One more part, under the next number. Raises `NotWritten`."""
        self.write(f"{self._next:06}", table)
        self._next += 1

    def write(self, name: str, table: pa.Table) -> None:
        """A part, whole or not at all; one of the same name is replaced. Raises `NotWritten`."""
        try:
            self._write(
                f"{_PREFIX}{name}{_SUFFIX}",
                lambda stream: parquet.write_table(table, stream, compression="zstd"),
            )
        except (pa.ArrowException, OSError) as exc:
            raise NotWritten(f"a part of {self._address} cannot be written: {exc}") from exc

    def close(self) -> None:
        """Let others write the folder."""
        if self._lock is not None:
            os.close(self._lock)

    def _names(self) -> list[str]:
        """Of the parts that are there, sorted."""
        found = or_refuse(self._address, self._listed)
        names = (one.base_name for one in found)
        return sorted(
            name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            for name in names
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
        )

    def _listed(self) -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = self._system.get_file_info(fs.FileSelector(self._folder))
        return found

    def _check_plan(self, plan: Plan) -> None:
        place = f"{self._folder}/{_PLAN}"
        if self._system.get_file_info(place).is_file:
            with self._system.open_input_stream(place) as stream:
                _compare(self._address, stream.read(), plan)
        elif any(not one.base_name.startswith(".") for one in self._listed()):
            raise StartupError(f"{self._address} has files that no run has written")
        else:
            text = json.dumps(plan, indent=2) + "\n"
            self._write(_PLAN, lambda stream: stream.write(text.encode()))

    def _write(self, name: str, write: Callable[[pa.NativeFile], object]) -> None:
        place = f"{self._folder}/{name}"
        if not self._local:
            with self._system.open_output_stream(place) as stream:
                write(stream)
            return
        unfinished = Path(self._folder, f".{name}.unfinished")  # an earlier run's is replaced
        try:
            with self._system.open_output_stream(str(unfinished)) as stream:
                write(stream)
            _force(unfinished)
            unfinished.rename(place)
            _force(unfinished.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _done(name: str, part: pa.NativeFile) -> Iterator[tuple[str, str | None]]:
    """The path of each file in a part, and the code of its error. Raises `StartupError`."""
    try:
        with parquet.ParquetFile(part) as file:
            for batch in file.iter_batches(_PATHS_AT_ONCE, columns=["path", "error"]):
                yield from zip(*batch.to_pydict().values(), strict=True)
    except (pa.ArrowException, OSError) as exc:
        raise StartupError(
            f"{name} cannot be read; delete it to do its files again: {reason(exc)}"
        ) from exc


def _compare(folder: str, text: bytes, plan: Plan) -> None:
    """Refuse to go on if a folder's plan is another one. Raises `StartupError`."""
    try:
        before = dict(json.loads(text))
    except (ValueError, TypeError) as exc:
        raise StartupError(f"{_PLAN} of {folder} is damaged") from exc
    for name in (*plan, *before):
        if before.get(name) != plan.get(name):
            there, here = (json.dumps(one.get(name))[:_TOLD_LENGTH] for one in (before, plan))
            raise StartupError(
                f"{folder} was begun with {name} {there}, and this run has {here}: "
                "write to another folder"
            )


def _locked(folder: Path) -> int:
    """A lock that ends with this process. Raises `OSError` or `StartupError`."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupError(f"another run is writing to {folder}") from None
    return lock


def _force(path: Path) -> None:
    """To the disk, so that a name never comes before what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
