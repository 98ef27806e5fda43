"""Which paths a run has, or had before it was interrupted: on a disk, so memory does not grow."""

import sqlite3
from collections.abc import Iterable, Iterator


class Seen:
    """Used by one thread at a time. What it holds ends with it."""

    def __init__(self) -> None:
        # Without a name SQLite takes a temporary file, which it writes once its cache is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE seen (path TEXT PRIMARY KEY) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, path: str) -> bool:
        """Whether the path was new."""
        found = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (path,))
        return found.rowcount == 1

    def new(self, paths: Iterable[str]) -> Iterator[str]:
        """Those of the paths that were not there before, each once."""
        return filter(self.add, paths)

    def close(self) -> None:
        self._database.close()
