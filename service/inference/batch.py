"""The items of a batch that is being run, and whether anybody still waits for its results.

A batch in this process takes milliseconds and is never stopped. One that waits on another machine
can be called off once all of its callers have left.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar, overload

Item = TypeVar("Item")
Result = TypeVar("Result")


class Awaited(Future[Result]):
    """A future that remembers that its caller has left, although its work has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.abandoned = False
        self.on_abandoned: Callable[[], None] = lambda: None

    def cancel(self) -> bool:
        if super().cancel():
            return True
        if self.running():
            self.abandoned = True
            self.on_abandoned()
        return False


class Batch(Sequence[Item], Generic[Item]):
    def __init__(
        self, items: Sequence[Item], futures: "Sequence[Awaited[Result]]", alone: bool = True
    ) -> None:
        """`alone`: whether nothing else ran, waited or was about to come when it was formed."""
        self._items = items
        self._futures = futures
        self.alone = alone

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def abandoned(self) -> bool:
        """Whether every caller has left."""
        return all(future.abandoned for future in self._futures)

    def when_abandoned(self, stop: Callable[[], object]) -> None:
        """Call `stop`, maybe more than once, when every caller has left; at once if they have."""

        def check() -> None:
            if self.abandoned:
                stop()

        for future in self._futures:
            future.on_abandoned = check
        check()
