"""Requests to batches: a bounded queue in front of one model, and the threads that run it.

Knows nothing of images, ONNX or HTTP. The policy, all of it:
- A caller is admitted before its items exist: it reserves slots of the queue, as many as it needs
  or none, and is refused at once when there are too few.
- By default nothing waits: a thread that is free takes its share of the queued items, up to the
  largest batch. With `max_wait_s`, the oldest item waits up to that long for others, and a thread
  then takes all of them; a full batch is run at once.
- A batch holds items of one key, the key of the oldest item.
- Items that their caller has cancelled leave the queue. Items past their deadline fail when a
  batch is formed. Neither reaches the model.
- If a batch fails, its items are run one by one, so that only those at fault fail; unless the error
  says that it is not about them. A batch whose callers have all left may be called off by `run`.
- Threads survive every error of the model. Should one die all the same, `alive` becomes false and
  every queued item fails.
- `stop` ends the threads once the queue is empty. A caller that was admitted before is answered as
  long as one thread is left.
- The counts add up: accepted = answered + failed + cancelled + expired, once nothing is in flight.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from service.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    QueueFull,
    ServiceError,
    Stopped,
)
from service.inference.batch import Awaited, Batch
from service.inference.counts import Counts

Item = TypeVar("Item")
Result = TypeVar("Result")

_logger = logging.getLogger(__name__)
_SMOOTHING = 0.2  # weight of the newest batch in the measured speed


class Done(NamedTuple, Generic[Result]):
    """A result, and the time it took."""

    value: Result
    queue_s: float
    run_s: float  # of the whole batch
    ended: float  # when, by time.perf_counter


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    key: Hashable
    deadline: float  # by time.perf_counter
    future: "Awaited[Done[Result]]" = field(default_factory=Awaited)
    queued: float = field(default_factory=time.perf_counter)


class Admission(Generic[Item, Result]):
    """Slots of a queue; those that no item has taken are released when the `with` block ends."""

    def __init__(self, batcher: "Batcher[Item, Result]") -> None:
        self._batcher = batcher
        self._slots = 0

    def reserve(self, slots: int) -> None:
        """Hold this many slots in total. Raises `QueueFull`."""
        if slots != self._slots:
            self._batcher._reserve(slots - self._slots)
            self._slots = slots

    def submit(
        self, items: Sequence[Item], key: Hashable = None, deadline: float = math.inf
    ) -> "list[Future[Done[Result]]]":
        """Queue all items, or none. `deadline` is a time by `time.perf_counter`."""
        self.reserve(len(items))
        entries: list[_Entry[Item, Result]] = [_Entry(item, key, deadline) for item in items]
        self._slots = 0
        self._batcher._enqueue(entries)
        return [entry.future for entry in entries]

    def __enter__(self) -> "Admission[Item, Result]":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reserve(0)


class Batcher(Generic[Item, Result]):
    """Runs `run(items, key)` on threads of its own, for up to `max_batch_size` items at a time.

    `run` returns one result for each item, in order.
    """

    def __init__(
        self,
        run: Callable[[Batch[Item], Hashable], Sequence[Result]],
        *,
        max_batch_size: int,
        max_queue_items: int,
        threads: int = 1,
        max_wait_s: float = 0.0,
        name: str = "batcher",
    ) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue_items = max_queue_items
        self._max_wait_s = max_wait_s
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._reserved = 0
        self._counts = Counts()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread_died = False
        self._threads_left = threads
        self._seconds_per_item = 0.0
        self._threads = [
            threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether no thread has ended."""
        return self._threads_left == len(self._threads)

    @property
    def depth(self) -> int:
        """How many items are waiting."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether items wait or run, or slots are held for some that are about to come."""
        return self._counts.in_flight > 0 or self._reserved > 0

    @property
    def accepted(self) -> int:
        """Items since the start, without a copy of all counts."""
        return self._counts.accepted

    @property
    def counts(self) -> Counts:
        """A copy, taken at one moment."""
        with self._changed:
            return self._counts.copy()

    def admit(self, slots: int = 1) -> Admission[Item, Result]:
        """Reserve slots for items that do not exist yet. Raises `QueueFull` or `Stopped`."""
        if self._stopping or not self.alive:
            raise Stopped("this model takes no more work")
        admission = Admission(self)
        admission.reserve(slots)
        return admission

    def submit(
        self, items: Sequence[Item], key: Hashable = None, deadline: float = math.inf
    ) -> "list[Future[Done[Result]]]":
        """Queue all items, or none. Raises `QueueFull` or `Stopped`."""
        with self.admit(len(items)) as admission:
            return admission.submit(items, key, deadline)

    def stop(self, timeout_s: float | None = None) -> None:
        """Run what is queued, then end the threads; items left after the timeout fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0, deadline - time.perf_counter()))
        self._fail_queued(Stopped("the server is shutting down"))

    def _reserve(self, slots: int) -> None:
        """Take more slots, or release some if negative. Raises `QueueFull`."""
        with self._changed:
            taken = len(self._queue) + self._reserved
            if slots > 0 and taken + slots > self._max_queue_items:
                self._counts.refused += slots
                raise QueueFull(
                    f"{taken} of {self._max_queue_items} queue slots are taken "
                    f"and the request needs {slots}",
                    retry_after_s=max(1, math.ceil(taken * self._seconds_per_item)),
                )
            self._reserved += slots

    def _enqueue(self, entries: list[_Entry[Item, Result]]) -> None:
        """Put entries into slots that have been reserved for them."""
        with self._changed:
            self._reserved -= len(entries)
            self._counts.accepted += len(entries)
            self._queue.extend(entries)
            self._changed.notify(len(entries))
        for entry in entries:
            entry.future.add_done_callback(partial(self._drop_cancelled, entry))
        self._fail_if_ended()  # the last thread may have ended since the slots were reserved

    def _drop_cancelled(self, entry: _Entry[Item, Result], future: "Future[Done[Result]]") -> None:
        """Called when a future is done, for whatever reason."""
        if future.cancelled():
            with self._changed:
                self._counts.cancelled += 1
                if entry in self._queue:
                    self._queue.remove(entry)

    def _loop(self) -> None:
        try:
            while batch := self._next_batch():
                self._run_batch(batch, self._alone(len(batch)))
        except BaseException:
            _logger.critical("the batch thread has died", exc_info=True)
            self._thread_died = True
            raise
        finally:
            with self._changed:
                self._threads_left -= 1
            self._fail_if_ended()

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        """The next items to run, of one key. Empty once the batcher stops and nothing is queued."""
        while True:
            with self._changed:
                while not self._queue:
                    if self._stopping:
                        return []
                    self._changed.wait()
                self._wait_until_full()
                batch = self._pop_batch()
            now = time.perf_counter()
            runnable = []
            for entry in batch:
                if not entry.future.set_running_or_notify_cancel():
                    continue
                if entry.deadline < now:
                    self._fail(entry, DeadlineExceeded("the request waited past its deadline"))
                else:
                    runnable.append(entry)
            if runnable:
                return runnable

    def _alone(self, items: int) -> bool:
        """Whether there is nothing beside a batch of so many items."""
        return self._counts.in_flight <= items and not self._reserved

    def _wait_until_full(self) -> None:
        """Wait until a batch is full or the oldest item has waited for `max_wait_s`."""
        while self._queue and len(self._queue) < self._max_batch_size and not self._stopping:
            remaining_s = self._queue[0].queued + self._max_wait_s - time.perf_counter()
            if remaining_s <= 0:
                return
            self._changed.wait(remaining_s)

    def _pop_batch(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        other_keys: list[_Entry[Item, Result]] = []
        size = self._max_batch_size
        if not self._max_wait_s:  # what has queued is shared among the threads
            size = min(size, -(-len(self._queue) // len(self._threads)))
        while self._queue and len(batch) < size:
            entry = self._queue.popleft()
            (other_keys if batch and entry.key != batch[0].key else batch).append(entry)
        self._queue.extendleft(reversed(other_keys))
        return batch

    def _run_batch(self, batch: list[_Entry[Item, Result]], alone: bool = False) -> None:
        started = time.perf_counter()
        items = Batch([entry.item for entry in batch], [entry.future for entry in batch], alone)
        try:
            results = self._run(items, batch[0].key)
            if len(results) != len(batch):
                raise InferenceFailed(f"{len(results)} results for {len(batch)} items")
        except Exception as exc:
            if isinstance(exc, ServiceError) and not isinstance(exc, InferenceFailed):
                for entry in batch:
                    self._fail(entry, exc)
                return
            if len(batch) > 1:
                _logger.warning("a batch of %d failed, running its items one by one", len(batch))
                for entry in batch:
                    self._run_batch([entry])
                return
            _logger.exception("inference failed")
            self._fail(
                batch[0],
                exc if isinstance(exc, InferenceFailed) else InferenceFailed("see the log"),
            )
            return
        except BaseException:  # the thread dies, but no caller waits for ever
            for entry in batch:
                self._fail(entry, InferenceFailed("the model's thread has died"))
            raise
        run_s = time.perf_counter() - started
        with self._changed:
            self._counts.answered += len(batch)
            self._counts.batch_sizes[len(batch)] += 1
            self._update_speed(run_s, len(batch))
        for entry, value in zip(batch, results, strict=True):
            entry.future.set_result(Done(value, started - entry.queued, run_s, started + run_s))

    def _update_speed(self, run_s: float, items: int) -> None:
        """Smooth the speed, from which a refused caller is told when to try again."""
        seconds_per_item = run_s / items / len(self._threads)
        smoothed = self._seconds_per_item or seconds_per_item
        self._seconds_per_item = smoothed + _SMOOTHING * (seconds_per_item - smoothed)

    def _fail(self, entry: _Entry[Item, Result], error: ServiceError) -> None:
        with self._changed:
            if entry.future.done():
                return
            if isinstance(error, DeadlineExceeded):
                self._counts.expired += 1
            elif isinstance(error, ClientGone):
                self._counts.cancelled += 1
            else:
                self._counts.failed += 1
        entry.future.set_exception(error)

    def _fail_if_ended(self) -> None:
        """Fail what is queued if no thread will run it.

        Called whenever items have been queued and whenever a thread has ended, so no item is left.
        """
        if self._thread_died:
            self._fail_queued(InferenceFailed("the model's thread has died"))
        elif not self._threads_left:
            self._fail_queued(Stopped("the server is shutting down"))

    def _fail_queued(self, error: ServiceError) -> None:
        with self._changed:
            entries = list(self._queue)
            self._queue.clear()
        for entry in entries:
            if entry.future.set_running_or_notify_cancel():
                self._fail(entry, error)
