"""Requests to batches: a bounded queue and a thread, or a few, in front of one model.

Knows nothing of images, ONNX or HTTP. The policy, all of it:
- a caller is admitted before its items are made: it takes places, all or none, of a
  bounded number, and is refused at once when they are gone;
- no artificial delay by default: when a thread is free it takes its share of what has queued, up
  to the maximum; with `max_wait_s` it lets the first item wait that long for company, takes all
  that came, and a full batch goes at once;
- a batch holds items of one key, the key of the item that has waited longest;
- items whose caller has gone leave the queue, items past their deadline fail when a batch is
  formed; neither reaches the model;
- if a batch fails, its items run one by one, so that only the culprit fails;
- threads outlive every error of the model; should one of them die all the same, `alive` says so
  and everything queued fails;
- stopping ends a thread once nothing is queued; what was admitted before is answered as long as
  one is left;
- the books balance: accepted = answered + failed + cancelled + expired, once nothing is queued.
"""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, ServiceError, Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

_logger = logging.getLogger(__name__)
_SMOOTHING = 0.2  # weight of the newest batch in the measured speed


class Done(NamedTuple, Generic[Result]):
    """A result and where its time went."""

    value: Result
    queue_s: float
    run_s: float  # of the whole batch
    ended: float  # a time of time.perf_counter


@dataclass
class Books:
    """What became of every item since the start."""

    accepted: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0  # never accepted
    batch_sizes: Counter[int] = field(default_factory=Counter)

    @property
    def in_flight(self) -> int:
        return self.accepted - self.answered - self.failed - self.cancelled - self.expired


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    key: Hashable
    deadline: float  # of time.perf_counter
    future: "Future[Done[Result]]" = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Admission(Generic[Item, Result]):
    """Places in a queue, given back on leaving the `with` block unless items took them."""

    def __init__(self, batcher: "Batcher[Item, Result]") -> None:
        self._batcher = batcher
        self._places = 0

    def reserve(self, places: int) -> None:
        """Hold this many places in all. Raises `QueueFull`."""
        self._batcher._take(places - self._places)
        self._places = places

    def submit(
        self, items: Sequence[Item], key: Hashable = None, deadline: float = math.inf
    ) -> "list[Future[Done[Result]]]":
        """Queue items, all or none. `deadline` is a time of `time.perf_counter`."""
        self.reserve(len(items))
        entries = [_Entry[Item, Result](item, key, deadline) for item in items]
        self._places = 0
        self._batcher._enqueue(entries)
        return [entry.future for entry in entries]

    def __enter__(self) -> "Admission[Item, Result]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reserve(0)


class Batcher(Generic[Item, Result]):
    """Runs `run(items, key)` on threads of its own, for up to `max_batch_size` items at a time.

    `run` gives one result for each item, in order.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Hashable], Sequence[Result]],
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
        self._books = Books()
        self._changed = threading.Condition()
        self._stopping = False
        self._died = False  # one of the threads
        self._running = threads
        self._seconds_per_item = 0.0
        self._threads = [
            threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every thread takes batches."""
        return self._running == len(self._threads)

    @property
    def depth(self) -> int:
        """Items that wait."""
        return len(self._queue)

    @property
    def books(self) -> Books:
        """A copy that balances in itself."""
        with self._changed:
            return replace(self._books, batch_sizes=Counter(self._books.batch_sizes))

    def admit(self, places: int = 1) -> Admission[Item, Result]:
        """Places for items that are still to be made. Raises `QueueFull` or `Stopped`."""
        if self._stopping or not self.alive:
            raise Stopped("this model takes no more work")
        admission = Admission(self)
        admission.reserve(places)
        return admission

    def submit(
        self, items: Sequence[Item], key: Hashable = None, deadline: float = math.inf
    ) -> "list[Future[Done[Result]]]":
        """Queue items that are ready, all or none. Raises `QueueFull` or `Stopped`."""
        with self.admit(len(items)) as admission:
            return admission.submit(items, key, deadline)

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish what is queued, then end the threads; what is left after the timeout fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0, deadline - time.perf_counter()))
        self._fail_queued(Stopped("the server is shutting down"))

    def _take(self, places: int) -> None:
        """More places, or fewer where negative."""
        with self._changed:
            taken = len(self._queue) + self._reserved
            if places > 0 and taken + places > self._max_queue_items:
                self._books.refused += places
                raise QueueFull(
                    f"{taken} of {self._max_queue_items} places are taken "
                    f"and the request needs {places}",
                    retry_after_s=max(1, math.ceil(taken * self._seconds_per_item)),
                )
            self._reserved += places

    def _enqueue(self, entries: list[_Entry[Item, Result]]) -> None:
        with self._changed:
            self._reserved -= len(entries)
            self._books.accepted += len(entries)
            self._queue.extend(entries)
            self._changed.notify(len(entries))
        for entry in entries:
            entry.future.add_done_callback(partial(self._left, entry))
        self._fail_unanswerable()  # a thread may have ended since the places were taken

    def _left(self, entry: _Entry[Item, Result], future: "Future[Done[Result]]") -> None:
        """A caller that goes takes its item out of the queue."""
        if future.cancelled():
            with self._changed:
                self._books.cancelled += 1
                if entry in self._queue:
                    self._queue.remove(entry)

    def _loop(self) -> None:
        try:
            while batch := self._next_batch():
                self._answer(batch)
        except BaseException:
            _logger.critical("the batch thread has died", exc_info=True)
            self._died = True
            raise
        finally:
            with self._changed:
                self._running -= 1
            self._fail_unanswerable()

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        """The next items of one key that are still wanted; empty only when stopping."""
        while True:
            with self._changed:
                while not self._queue:
                    if self._stopping:
                        return []
                    self._changed.wait()
                self._wait_for_company()
                batch = self._pop_batch()
            now = time.perf_counter()
            wanted = []
            for entry in batch:
                if not entry.future.set_running_or_notify_cancel():
                    continue
                if entry.deadline < now:
                    self._fail(entry, DeadlineExceeded("the request waited past its deadline"))
                else:
                    wanted.append(entry)
            if wanted:
                return wanted

    def _wait_for_company(self) -> None:
        """Until the first item has waited its time or a batch is full; at once by default."""
        while self._queue and len(self._queue) < self._max_batch_size and not self._stopping:
            left = self._queue[0].since + self._max_wait_s - time.perf_counter()
            if left <= 0:
                return
            self._changed.wait(left)

    def _pop_batch(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        passed: list[_Entry[Item, Result]] = []
        size = self._max_batch_size
        if not self._max_wait_s:
            size = min(size, -(-len(self._queue) // len(self._threads)))
        while self._queue and len(batch) < size:
            entry = self._queue.popleft()
            (passed if batch and entry.key != batch[0].key else batch).append(entry)
        self._queue.extendleft(reversed(passed))
        return batch

    def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        started = time.perf_counter()
        try:
            results = self._run([entry.item for entry in batch], batch[0].key)
            if len(results) != len(batch):
                raise InferenceFailed(f"{len(results)} results for {len(batch)} items")
        except Exception as exc:
            if len(batch) > 1:
                _logger.warning("a batch of %d failed, running its items singly", len(batch))
                for entry in batch:
                    self._answer([entry])
                return
            _logger.exception("inference failed")
            self._fail(
                batch[0],
                exc if isinstance(exc, InferenceFailed) else InferenceFailed("see the log"),
            )
            return
        except BaseException:  # the thread dies, but nobody waits for ever
            for entry in batch:
                self._fail(entry, InferenceFailed("the model's thread has died"))
            raise
        run_s = time.perf_counter() - started
        with self._changed:
            self._books.answered += len(batch)
            self._books.batch_sizes[len(batch)] += 1
            self._measure(run_s, len(batch))
        for entry, value in zip(batch, results, strict=True):
            entry.future.set_result(Done(value, started - entry.since, run_s, started + run_s))

    def _measure(self, run_s: float, items: int) -> None:
        """Smoothed speed, for the wait that a refused caller is told."""
        seconds_per_item = run_s / items / len(self._threads)
        known = self._seconds_per_item or seconds_per_item
        self._seconds_per_item = known + _SMOOTHING * (seconds_per_item - known)

    def _fail(self, entry: _Entry[Item, Result], error: ServiceError) -> None:
        with self._changed:
            if entry.future.done():
                return
            if isinstance(error, DeadlineExceeded):
                self._books.expired += 1
            else:
                self._books.failed += 1
        entry.future.set_exception(error)

    def _fail_unanswerable(self) -> None:
        """Called after every item that queues and every thread that ends, so nothing is missed."""
        if self._died:
            self._fail_queued(InferenceFailed("the model's thread has died"))
        elif not self._running:
            self._fail_queued(Stopped("the server is shutting down"))

    def _fail_queued(self, error: ServiceError) -> None:
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
        for entry in left:
            if entry.future.set_running_or_notify_cancel():
                self._fail(entry, error)
