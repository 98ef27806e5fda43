"""Paths on this machine and addresses of object stores, as s3://bucket/folder, and their files.

Which stores there are, and where their credentials are found, is Arrow's.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from service.bulk import files
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
        system, place = resolved(path)
        with system.open_input_stream(place) as stream:
            content: bytes = stream.read(max_bytes + 1)
    except (pa.ArrowException, OSError) as exc:
        raise UnreadableFile(reason(exc)) from exc
    if len(content) > max_bytes:
        raise UnreadableFile(f"at most {max_bytes:,} bytes are read")
    return content


def _below(folder: str) -> Iterator[str]:
    system, place = or_refuse(folder, lambda: resolved(folder))
    return _walked(folder, system, place)


def _walked(folder: str, system: fs.FileSystem, place: str) -> Iterator[str]:
    found = or_refuse(folder, lambda: system.get_file_info(fs.FileSelector(place)))
    shown = [one for one in found if not one.base_name.startswith(".")]
    shown.sort(key=lambda one: (one.type == fs.FileType.Directory, one.base_name))
    for one in shown:
        address = f"{folder}/{one.base_name}"
        if one.type == fs.FileType.Directory:
            yield from _walked(address, system, one.path)
        else:
            yield address


def resolved(address: str) -> tuple[fs.FileSystem, str]:
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


def or_refuse(what: str, ask: Callable[[], T]) -> T:
    """What `ask` returns. Raises `StartupError` where Arrow or the system refuses."""
    try:
        return ask()
    except (pa.ArrowException, OSError) as exc:
        raise StartupError(f"{what} cannot be read: {reason(exc)}") from exc


def reason(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split())
