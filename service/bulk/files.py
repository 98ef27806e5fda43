"""The files of a run: which there are, one after the other, and the bytes of each.

Paths are text in which every byte that a system may put into a name has its place: bytes that are
not UTF-8 are written as `\\xff`, and a backslash before an x as `\\x5c`.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from service.errors import StartupError, UnreadableFile

STANDARD_INPUT = "-"
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def can_be_read_again(source: str) -> bool:
    """Whether it is a folder or a file, and no stream. Raises `StartupError` if it is not there."""
    if source == STANDARD_INPUT:
        return False
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError) as exc:
        raise StartupError(f"{source} cannot be read: {_reason(exc)}") from exc
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)


def paths(source: str) -> Iterator[str]:
    """The paths of a folder, sorted within each of its folders, or the lines of a list.

    Hidden files and folders are left out, and links to folders are not followed. A folder that
    cannot be read is among the paths itself. Raises `StartupError` if the list cannot be read.
    """
    if source != STANDARD_INPUT and Path(source).is_dir():
        return _below(os.fsencode(Path(source)))
    return _lines(source)


def read(path: str, max_bytes: int) -> bytes:
    """A whole file of at most so many bytes. Raises `UnreadableFile`."""
    try:
        with open(_opened(path), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile("it is not a file")
            content = file.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise UnreadableFile(
                    f"it has {max(status.st_size, len(content)):,} bytes; "
                    f"at most {max_bytes:,} are read"
                )
            return content
    except (OSError, ValueError) as exc:
        raise UnreadableFile(_reason(exc)) from exc


def _below(folder: bytes) -> Iterator[str]:
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(_text_of(error.filename))

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith(b"."))
        for name in sorted(names):
            if not name.startswith(b"."):
                yield _text_of(os.path.join(parent, name))  # noqa: PTH118  # of bytes
        yield from unreadable
        unreadable.clear()
    yield from unreadable


def _lines(source: str) -> Iterator[str]:
    try:
        with open(0 if source == STANDARD_INPUT else source, "rb", closefd=source != "-") as file:
            for line in file:
                if name := line.rstrip(b"\r\n"):
                    yield _text_of(name)
    except OSError as exc:
        raise StartupError(f"{source} cannot be read: {_reason(exc)}") from exc


def _text_of(name: bytes) -> str:
    return name.replace(rb"\x", rb"\x5cx").decode(errors="backslashreplace")


def _bytes_of(path: str) -> bytes:
    parts = _ESCAPED.split(path)  # every second one is a byte
    return b"".join(
        bytes.fromhex(part) if number % 2 else part.encode() for number, part in enumerate(parts)
    )


def _opened(path: str) -> int:
    """Without a wait for whoever writes to a pipe."""
    return os.open(_bytes_of(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
