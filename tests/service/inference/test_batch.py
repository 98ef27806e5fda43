"""A batch that is called off once all callers have left, and errors that are not an item's."""

import threading
from collections.abc import Hashable, Sequence

import pytest

from service.errors import ClientGone, EngineUnavailable
from service.inference.batch import Awaited, Batch
from service.inference.batching import Batcher

PATIENCE_S = 30  # only ever waited for in full by a test that fails


def begun(count: int) -> "list[Awaited[int]]":
    futures = [Awaited[int]() for _ in range(count)]
    for future in futures:
        assert future.set_running_or_notify_cancel()
    return futures


def test_it_is_abandoned_when_the_last_caller_leaves() -> None:
    futures = begun(2)
    batch = Batch("ab", futures)
    stopped = threading.Event()
    batch.when_abandoned(stopped.set)
    assert not futures[0].cancel()
    assert not batch.abandoned
    assert not stopped.is_set()
    assert not futures[1].cancel()
    assert batch.abandoned
    assert stopped.is_set()


def test_callers_that_have_left_before_are_not_missed() -> None:
    futures = begun(1)
    futures[0].cancel()
    stopped = threading.Event()
    Batch("a", futures).when_abandoned(stopped.set)
    assert stopped.is_set()


def test_a_caller_that_has_its_result_has_not_left() -> None:
    futures = begun(2)
    batch = Batch("ab", futures)
    futures[0].set_result(1)
    assert not futures[0].cancel()
    assert not futures[1].cancel()
    assert not batch.abandoned


def test_items_are_those_of_the_batch() -> None:
    batch = Batch("abc", begun(3))
    assert (list(batch), len(batch), batch[1], batch[1:]) == (["a", "b", "c"], 3, "b", "bc")


def test_a_batch_that_was_called_off_counts_as_cancelled() -> None:
    running = threading.Event()

    def run(items: Batch[int], _: Hashable) -> Sequence[int]:
        stopped = threading.Event()
        items.when_abandoned(stopped.set)
        running.set()
        assert stopped.wait(PATIENCE_S)
        raise ClientGone("every client of a batch has left")

    batcher = Batcher(run, max_batch_size=4, max_queue_items=8)
    (future,) = batcher.submit([1])
    assert running.wait(PATIENCE_S)
    assert not future.cancel()
    with pytest.raises(ClientGone):
        future.result(PATIENCE_S)
    counts = batcher.counts
    assert (counts.accepted, counts.cancelled, counts.failed, counts.in_flight) == (1, 1, 0, 0)
    batcher.stop()


def test_an_error_of_the_service_is_not_tried_again_item_by_item() -> None:
    batches = []
    held = threading.Event()

    def run(items: Batch[int], _: Hashable) -> Sequence[int]:
        batches.append(list(items))
        assert held.wait(PATIENCE_S)
        raise EngineUnavailable("no engine", retry_after_s=1)

    batcher = Batcher(run, max_batch_size=4, max_queue_items=8)
    first = batcher.submit([1])
    later = batcher.submit([2, 3])
    held.set()
    for future in [*first, *later]:
        with pytest.raises(EngineUnavailable) as failed:
            future.result(PATIENCE_S)
        assert failed.value.retry_after_s == 1
    assert sorted(batches) in ([[1], [2, 3]], [[1, 2, 3]])
    assert batcher.counts.failed == 3
    batcher.stop()
