"""How many connections there may be, and which one ends when there is one too many.

Of the clients that have the most, the oldest connection that waits for a request ends; so whoever
opens thousands takes them from nobody else.
"""

from collections import Counter
from typing import Protocol


class Connection(Protocol):
    owner: str  # the client whose it is

    @property
    def waiting(self) -> bool:
        """Whether nothing that it has asked for is being done."""
        ...

    def end(self) -> None: ...


class Connections:
    """All connections of a process; used from the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Connection, None] = {}  # a set, oldest first

    def add(self, connection: Connection) -> None:
        """A new connection, in whose place another one may end, or it itself."""
        self._open[connection] = None
        if len(self._open) > self._most:
            self._one_too_many(connection).end()

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection, None)

    def _one_too_many(self, newest: Connection) -> Connection:
        counts = Counter(one.owner for one in self._open)
        return max(
            (
                one
                for one in self._open
                if one.waiting and one is not newest and counts[one.owner] >= counts[newest.owner]
            ),
            key=lambda one: counts[one.owner],
            default=newest,
        )
