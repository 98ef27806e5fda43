"""Requests to batches: one bounded queue and one thread in front of one model.

Knows nothing of images, ONNX or HTTP. The policy, all of it:
- no artificial delay: when the thread is free it takes what has queued, up to the maximum;
- a batch holds items of one key, the key of the item that has waited longest;
- the queue is bounded in items, and a group is admitted whole or refused at once;
- items whose caller has gone are dropped when a batch is formed;
- if a batch fails, its items run one by one, so that only the culprit fails.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from service.errors import InferenceFailed, QueueFull, Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

_logger = logging.getLogger(__name__)
_SMOOTHING = 0.2  # weight of the newest batch in the measured speed


class Done(NamedTuple, Generic[Result]):
    """A result and where its time went."""

    value: Result
    queue_s: float
    run_s: float  # of the whole batch


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    key: Hashable
    future: "Future[Done[Result]]" = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Item, Result]):
    """Runs `run(items, key)` on its own thread, for up to `max_batch_size` items at a time.

    `run` gives one result for each item, in order.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Hashable], Sequence[Result]],
        *,
        max_batch_size: int,
        max_queue_items: int,
        name: str = "batcher",
    ) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue_items = max_queue_items
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_per_item: float | None = None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, items: Sequence[Item], key: Hashable = None) -> "list[Future[Done[Result]]]":
        """Queue items, all or none. Raises `QueueFull` or `Stopped`."""
        waiting = [_Waiting[Item, Result](item, key) for item in items]
        with self._changed:
            if self._stopping or not self.alive:
                raise Stopped("this model takes no more work")
            if len(self._queue) + len(items) > self._max_queue_items:
                raise QueueFull(
                    f"{len(self._queue)} of {self._max_queue_items} places are taken "
                    f"and the request needs {len(items)}",
                    retry_after_s=self._retry_after_s(),
                )
            self._queue.extend(waiting)
            self._changed.notify()
        return [entry.future for entry in waiting]

    def stop(self) -> None:
        """Finish what is queued, then end the thread; returns when it has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _retry_after_s(self) -> int:
        """When the present queue will have been worked off, by the speed measured so far."""
        return max(1, math.ceil(len(self._queue) * (self._seconds_per_item or 0.0)))

    def _loop(self) -> None:
        while batch := self._next_batch():
            try:
                self._answer(batch)
            except Exception:  # the loop outlives everything
                _logger.exception("a batch was lost")
                for entry in batch:
                    _fail(entry, InferenceFailed("the batch was lost"))

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """The next items of one key whose callers still wait; empty only when stopping."""
        while True:
            with self._changed:
                while not self._queue:
                    if self._stopping:
                        return []
                    self._changed.wait()
                key = self._queue[0].key
                batch: list[_Waiting[Item, Result]] = []
                passed: list[_Waiting[Item, Result]] = []
                while self._queue and len(batch) < self._max_batch_size:
                    entry = self._queue.popleft()
                    (batch if entry.key == key else passed).append(entry)
                self._queue.extendleft(reversed(passed))
            wanted = [entry for entry in batch if entry.future.set_running_or_notify_cancel()]
            if wanted:
                return wanted

    def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        started = time.perf_counter()
        try:
            results = self._run([entry.item for entry in batch], batch[0].key)
            if len(results) != len(batch):
                raise InferenceFailed(f"{len(results)} results for {len(batch)} items")
        except Exception as exc:
            if len(batch) == 1:
                _logger.exception("inference failed")
                failure = (
                    exc if isinstance(exc, InferenceFailed) else InferenceFailed("see the log")
                )
                _fail(batch[0], failure)
                return
            _logger.warning("a batch of %d failed, running its items singly", len(batch))
            for entry in batch:
                self._answer([entry])
            return
        run_s = time.perf_counter() - started
        self._measure(run_s / len(batch))
        for entry, value in zip(batch, results, strict=True):
            entry.future.set_result(Done(value, started - entry.since, run_s))

    def _measure(self, seconds_per_item: float) -> None:
        previous = self._seconds_per_item
        self._seconds_per_item = (
            seconds_per_item
            if previous is None
            else previous + _SMOOTHING * (seconds_per_item - previous)
        )


def _fail(entry: _Waiting[Item, Result], error: Exception) -> None:
    if not entry.future.done():
        entry.future.set_exception(error)
