"""Paths on this machine and addresses of object stores, as s3://bucket/folder, read and written.

Which stores there are, and where their credentials are found, is Arrow's.
"""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs, parquet

from service.bulk import files
from service.bulk.parts import PLAN, NotWritten, Plan, check_plan, done, force
from service.errors import StartupError, UnreadableFile

T = TypeVar("T")


def is_address(text: str) -> bool:
    return "://" in text


def paths(source: str) -> Iterator[str]:
    """Those of a folder, as files.paths gives them, the addresses of one, or the lines of a list.

    Raises `StartupError`.
    """
    if not is_address(source):
        files.can_be_read_again(source)
        return files.paths(source)
    return _below(source.rstrip("/"))


def read(path: str, max_bytes: int) -> bytes:
    """A whole file of at most so many bytes. Raises `UnreadableFile`."""
    if not is_address(path):
        return files.read(path, max_bytes)
    try:
        system, place = _resolved(path)
        with system.open_input_stream(place) as stream:
            content: bytes = stream.read(max_bytes + 1)
    except (pa.ArrowException, OSError) as exc:
        raise UnreadableFile(_reason(exc)) from exc
    if len(content) > max_bytes:
        raise UnreadableFile(f"at most {max_bytes:,} bytes are read")
    return content


class Output:
    """A folder of parts that many processes write, each part under a name of its own."""

    def __init__(self, address: str) -> None:
        """Raises `StartupError`."""
        place = address if is_address(address) else str(Path(address).absolute())
        self._address = address
        self._system, self._folder = _or_refuse(address, lambda: _resolved(place))

    def begin(self, plan: Plan) -> None:
        """Begin the folder, or go on with one that has the same plan. Raises `StartupError`."""
        _or_refuse(self._address, lambda: self._system.create_dir(self._folder, recursive=True))
        place = f"{self._folder}/{PLAN}"
        if _or_refuse(self._address, lambda: self._system.get_file_info(place)).is_file:
            text = _or_refuse(self._address, lambda: self._system.open_input_stream(place).read())
            check_plan(self._address, text, plan)
            return
        if self._parts():
            raise StartupError(f"{self._address} has files that no run has written")
        self._write(PLAN, lambda stream: stream.write(json.dumps(plan, indent=2).encode()))

    def done(self) -> Iterator[tuple[str, str | None]]:
        """The path of every file that is done, and the code of its error. Raises `StartupError`."""
        for place in self._parts():
            file = _or_refuse(place, partial(self._system.open_input_file, place))
            yield from done(place, file)

    def write(self, name: str, table: pa.Table) -> None:
        """A part, whole or not at all; one of the same name is replaced. Raises `NotWritten`."""
        try:
            self._write(
                f"part-{name}.parquet",
                lambda stream: parquet.write_table(table, stream, compression="zstd"),
            )
        except (pa.ArrowException, OSError) as exc:
            raise NotWritten(f"a part of {self._address} cannot be written: {exc}") from exc

    def _parts(self) -> list[str]:
        found = _or_refuse(
            self._address, lambda: self._system.get_file_info(fs.FileSelector(self._folder))
        )
        names = (one for one in found if one.is_file and one.extension == "parquet")
        return sorted(one.path for one in names if not one.base_name.startswith("."))

    def _write(self, name: str, write: Callable[[pa.NativeFile], object]) -> None:
        """Stores show an object once it is whole; on a disk it is renamed then."""
        place = f"{self._folder}/{name}"
        local = isinstance(self._system, fs.LocalFileSystem)
        unfinished = f"{self._folder}/.{name}.unfinished" if local else place
        with self._system.open_output_stream(unfinished) as stream:
            write(stream)
        if local:
            force(Path(unfinished))
            self._system.move(unfinished, place)
            force(Path(self._folder))


def _below(folder: str) -> Iterator[str]:
    system, place = _or_refuse(folder, lambda: _resolved(folder))
    yield from _walked(folder, system, place)


def _walked(folder: str, system: fs.FileSystem, place: str) -> Iterator[str]:
    found = _or_refuse(folder, lambda: system.get_file_info(fs.FileSelector(place)))
    shown = [one for one in found if not one.base_name.startswith(".")]
    shown.sort(key=lambda one: (one.type == fs.FileType.Directory, one.base_name))
    for one in shown:
        address = f"{folder}/{one.base_name}"
        if one.type == fs.FileType.Directory:
            yield from _walked(address, system, one.path)
        else:
            yield address


def _resolved(address: str) -> tuple[fs.FileSystem, str]:
    """A file system, and the place in it. Raises `ArrowException` or `OSError`."""
    if not is_address(address):
        return fs.LocalFileSystem(), address
    scheme, _, rest = address.partition("://")
    host, _, path = rest.partition("/")
    system, root = _system(f"{scheme}://{host}/")
    return system, f"{root.rstrip('/')}/{path}"


@lru_cache(64)
def _system(address: str) -> tuple[fs.FileSystem, str]:
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
    return found


def _or_refuse(what: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (pa.ArrowException, OSError) as exc:
        raise StartupError(f"{what} cannot be read: {_reason(exc)}") from exc


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
