"""Results of other threads on their way to an event loop.

The loop is woken once for all that are there, as those of a batch are. Knows nothing of batches.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Arrivals:
    """Used from one event loop; its results come from any thread."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[_Waiting, Future[Any]]] = deque()
        self._waking = False

    async def of(self, futures: Sequence[Future[T]]) -> list[T]:
        """The results of all futures, in order. Raises what the first to fail has raised.

        All are cancelled if the caller is.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, len(futures))
        for future in futures:
            future.add_done_callback(partial(self._arrive, waiting))
        try:
            await waiting.all
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def _arrive(self, waiting: "_Waiting", future: "Future[Any]") -> None:
        """Called in the thread that has the result."""
        self._arrived.append((waiting, future))
        if not self._waking and not waiting.loop.is_closed():
            self._waking = True
            waiting.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False  # before the others are looked for: one more wakes the loop again
        while self._arrived:
            waiting, future = self._arrived.popleft()
            waiting.note(future)


class _Waiting:
    """A caller who waits for so many results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, results: int) -> None:
        self.loop = loop
        self.all: asyncio.Future[None] = loop.create_future()
        self._missing = results

    def note(self, arrived: "Future[Any]") -> None:
        self._missing -= 1
        if self.all.done():
            return
        if arrived.cancelled():
            self.all.cancel()
        elif error := arrived.exception():
            self.all.set_exception(error)
        elif not self._missing:
            self.all.set_result(None)
