"""A batcher whose model can be held while it runs a batch, and let go by hand."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from service.errors import InferenceFailed
from service.inference.batching import Batcher, Done

Batch = tuple[Hashable, list[int]]


Run = Callable[[Sequence[int], Hashable], Sequence[int]]


PATIENCE_S = 30  # only ever waited for in full by a test that fails


MAX_BATCH = 4


MAX_QUEUE = 12


class Model:
    """Doubles numbers, remembers its batches, and can be held while it runs one."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.entered = threading.Event()
        self._released = threading.Event()
        self._released.set()

    def __call__(self, items: Sequence[int], key: Hashable) -> list[int]:
        self.batches.append((key, list(items)))
        self.entered.set()
        assert self._released.wait(PATIENCE_S)
        return [2 * item for item in items]

    @contextmanager
    def held(self, batcher: Batcher[int, int]) -> Iterator[None]:
        """Busy with one item until the block ends; its batch is then forgotten."""
        self.hold()
        try:
            (first,) = batcher.submit([0], "held")
            assert self.entered.wait(PATIENCE_S)
            self.batches.clear()
            yield
        finally:
            self.release()
        value(first)

    def hold(self) -> None:
        self.entered.clear()
        self._released.clear()

    def release(self) -> None:
        self._released.set()


@contextmanager
def batching(
    run: Run, max_queue_items: int = MAX_QUEUE, threads: int = 1, max_wait_s: float = 0
) -> Iterator[Batcher[int, int]]:
    batcher = Batcher(
        run,
        max_batch_size=MAX_BATCH,
        max_queue_items=max_queue_items,
        threads=threads,
        max_wait_s=max_wait_s,
    )
    try:
        yield batcher
    finally:
        batcher.stop()


def value(future: "Future[Done[int]]") -> int:
    return future.result(PATIENCE_S).value


def outcome(future: "Future[Done[int]]") -> int | None:
    """The value, or None for an inference that failed."""
    error = future.exception(PATIENCE_S)
    assert error is None or isinstance(error, InferenceFailed)
    return None if error else value(future)
