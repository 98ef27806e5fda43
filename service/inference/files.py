"""The files of one exported version, read once: what is served is what was verified.

Every byte is hashed while it is copied into this process's own memory, so there is no moment
between the check and the use, and nothing that happens to the folder later reaches the model.
"""

import hashlib
import logging
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from models.manifest import Manifest, NewerManifest
from models.sums import SUMS, parse
from service.errors import StartupError

_logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_MAX_TEXT_BYTES = 64 * 2**20  # of a manifest, and of hashes
_MAX_GRAPH_BYTES = 2**31 - 1  # what Protocol Buffers can hold
_PIECE_BYTES = 2**20  # hashed while they are in the cache
_DAMAGED = "the version is damaged, or not copied completely yet"


class Files:
    """Reads the files of a version's folder, and refuses what is not as it was exported.

    Versions that were exported before there were hashes are read as they are.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StartupError`."""
        self.folder = folder
        self._sums: dict[str, str] | None = None
        text = self.read(_MANIFEST, _MAX_TEXT_BYTES)
        self.manifest = _manifest(folder, text)
        if self.manifest.sums is None and not (folder / SUMS).exists():
            _logger.warning(
                "%s cannot be verified: it was exported before files had hashes", folder
            )
            return
        try:
            self._sums = parse(self.read(SUMS, _MAX_TEXT_BYTES).decode())
        except ValueError as exc:
            raise StartupError(f"{folder}: {exc}") from exc
        self._check(_MANIFEST, hashlib.sha256(text).hexdigest())

    def has(self, name: str) -> bool:
        """Whether a file belongs to the version, be it there or not."""
        return name in self._sums if self._sums is not None else (self.folder / name).exists()

    def read(self, name: str, max_bytes: int = _MAX_GRAPH_BYTES) -> bytes:
        """A whole file that is not large. Raises `StartupError`."""
        with self._open(name) as file:
            length = os.fstat(file.fileno()).st_size
            if length > max_bytes:
                raise StartupError(f"{self.folder / name} has {length:,} bytes")
            content = file.read(max_bytes)
        if self._sums is not None:
            self._check(name, hashlib.sha256(content).hexdigest())
        return content

    def copy(self, name: str, length: int) -> mmap.mmap | bytes:
        """The bytes that the graphs need of a file, in memory that can be used as an array.

        Raises `StartupError`.
        """
        with self._open(name) as file:
            found = os.fstat(file.fileno()).st_size
            if found < length or (found > length and self._sums is not None):
                raise StartupError(
                    f"{self.folder / name} has {found:,} bytes, and the graphs need {length:,}: "
                    f"{_DAMAGED}"
                )
            if not length:
                return b""
            memory = mmap.mmap(-1, length, access=mmap.ACCESS_COPY)  # of this process alone
            digest = hashlib.sha256()
            with memoryview(memory) as view:
                for start in range(0, length, _PIECE_BYTES):
                    piece = view[start : start + _PIECE_BYTES]
                    if file.readinto(piece) != len(piece):
                        raise StartupError(f"{self.folder / name} changed while it was read")
                    digest.update(piece)
                    piece.release()
        self._check(name, digest.hexdigest())
        return memory

    @contextmanager
    def _open(self, name: str) -> Iterator[BufferedReader]:
        """A regular file: opening what is none could wait for ever."""
        path = self.folder / name
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise StartupError(f"{path} is not a file")
                yield file
        except FileNotFoundError as exc:
            raise StartupError(f"{path} is missing: {_DAMAGED}") from exc
        except OSError as exc:
            raise StartupError(f"{path} cannot be read: {exc.strerror}") from exc

    def _check(self, name: str, digest: str) -> None:
        """Raises `StartupError`."""
        if self._sums is not None and self._sums.get(name) != digest:
            listed = "does not have the hash in" if name in self._sums else "is not listed in"
            raise StartupError(f"{self.folder / name} {listed} {SUMS}: {_DAMAGED}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _manifest(folder: Path, text: bytes) -> Manifest:
    try:
        return Manifest.read(text.decode())
    except NewerManifest as exc:
        raise StartupError(f"{folder}: {exc}; upgrade the service") from exc
    except ValueError as exc:
        raise StartupError(f"{folder} has no readable manifest: {exc}") from exc
