"""The batcher's policy, line by line, with the model's thread held or let go by hand."""

import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InferenceFailed, QueueFull
from service.inference import batch
from service.inference.batching import Batcher, Done
from tests.service.inference.batchers import (
    MAX_BATCH,
    MAX_QUEUE,
    PATIENCE_S,
    Batch,
    Model,
    Run,
    batching,
    outcome,
    value,
)

NOTHING, ONE_ADMITTED, HELD, ONE_RUNNING = range(4)  # what is beside an item


def test_what_queues_while_the_model_is_busy_runs_as_one_batch() -> None:
    model = Model()
    with batching(model) as batcher:
        with model.held(batcher):
            futures = [future for item in (3, 1, 2) for future in batcher.submit([item])]
        assert [value(future) for future in futures] == [6, 2, 4]
    assert model.batches == [(None, [3, 1, 2])]


def test_a_free_model_waits_for_nothing() -> None:
    model = Model()
    with batching(model) as batcher:
        for item in range(3):
            assert value(batcher.submit([item])[0]) == 2 * item
    assert model.batches == [(None, [0]), (None, [1]), (None, [2])]


def test_a_batch_knows_whether_there_is_anything_beside_it() -> None:
    alone: dict[int, bool] = {}
    entered, release = threading.Event(), threading.Event()

    def run(items: batch.Batch[int], _: Hashable) -> Sequence[int]:
        alone[items[0]] = items.alone
        if items[0] == HELD:
            entered.set()
            assert release.wait(PATIENCE_S)
        return items

    batcher = Batcher(run, max_batch_size=1, max_queue_items=MAX_QUEUE, threads=2)
    try:
        assert value(batcher.submit([NOTHING])[0]) == NOTHING
        with batcher.admit():
            value(batcher.submit([ONE_ADMITTED])[0])
        (held,) = batcher.submit([HELD])
        assert entered.wait(PATIENCE_S)
        value(batcher.submit([ONE_RUNNING])[0])
        release.set()
        value(held)
    finally:
        release.set()
        batcher.stop()
    assert alone == {NOTHING: True, ONE_ADMITTED: False, HELD: True, ONE_RUNNING: False}


def test_a_result_says_how_long_it_queued_and_ran() -> None:
    model = Model()
    with batching(model) as batcher:
        with model.held(batcher):
            futures = batcher.submit([1, 2])
        first, second = (future.result(PATIENCE_S) for future in futures)
    assert first.queue_s > 0
    assert second.queue_s > 0
    assert first.run_s == second.run_s > 0


def in_order_of_age(queued: Sequence[tuple[Hashable, int]]) -> list[Batch]:
    """The batches that the policy makes of a queue."""
    batches: list[Batch] = []
    waiting = list(queued)
    while waiting:
        key = waiting[0][0]
        batch = [entry for entry in waiting if entry[0] == key][:MAX_BATCH]
        waiting = [entry for entry in waiting if entry not in batch]
        batches.append((key, [item for _, item in batch]))
    return batches


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=MAX_QUEUE))
def test_batches_are_of_one_key_no_larger_than_the_maximum_and_oldest_first(
    keys: list[str],
) -> None:
    queued = [(key, item) for item, key in enumerate(keys)]
    model = Model()
    with batching(model) as batcher:
        with model.held(batcher):
            futures = [batcher.submit([item], key)[0] for key, item in queued]
        assert [value(future) for future in futures] == [2 * item for _, item in queued]
    assert model.batches == in_order_of_age(queued)


@pytest.mark.parametrize("waiting", [1, 9, MAX_QUEUE])
def test_a_group_that_does_not_fit_is_refused_whole_and_leaves_the_queue(waiting: int) -> None:
    model = Model()
    with batching(model) as batcher:
        with model.held(batcher):
            admitted = batcher.submit(range(waiting))
            with pytest.raises(QueueFull) as refusal:
                batcher.submit(range(100, 100 + MAX_QUEUE - waiting + 1))
            admitted += batcher.submit(range(waiting, MAX_QUEUE))  # what is left still fits
        assert [value(future) for future in admitted] == [2 * item for item in range(MAX_QUEUE)]
    assert [item for _, batch in model.batches for item in batch] == list(range(MAX_QUEUE))
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1


def test_items_whose_caller_has_gone_never_run() -> None:
    model = Model()
    with batching(model) as batcher:
        with model.held(batcher):
            futures = batcher.submit(range(3)) + batcher.submit(range(10, 13), "gone")
            for future in (futures[1], *futures[3:]):
                assert future.cancel()
            futures += batcher.submit([20], "last")
        assert [value(futures[index]) for index in (0, 2, -1)] == [0, 4, 40]
    assert model.batches == [(None, [0, 2]), ("last", [20])]


def test_a_running_item_cannot_be_cancelled() -> None:
    entered, released = threading.Event(), threading.Event()

    def run(items: Sequence[int], _: Hashable) -> Sequence[int]:
        entered.set()
        assert released.wait(PATIENCE_S)
        return items

    with batching(run) as batcher:
        (future,) = batcher.submit([7])
        assert entered.wait(PATIENCE_S)
        assert not future.cancel()
        released.set()
        assert value(future) == 7


CULPRIT = 13


def failing(items: Sequence[int], _: Hashable) -> list[int]:
    if CULPRIT in items:
        raise ValueError(CULPRIT)
    return [2 * item for item in items]


def one_short(items: Sequence[int], _: Hashable) -> list[int]:
    return [2 * item for item in items if item != CULPRIT]


def one_too_many(items: Sequence[int], _: Hashable) -> list[int]:
    return [2 * copy for item in items for copy in [item] * (2 if item == CULPRIT else 1)]


def failing_together_one_short_alone(items: Sequence[int], key: Hashable) -> list[int]:
    return failing(items, key) if len(items) > 1 else one_short(items, key)


@pytest.mark.parametrize(
    "run", [failing, one_short, one_too_many, failing_together_one_short_alone]
)
def test_only_the_culprit_of_a_failed_batch_fails(run: Run) -> None:
    model = Model()

    def held_run(batch: Sequence[int], key: Hashable) -> Sequence[int]:
        return model(batch, key) if key == "held" else run(batch, key)

    with batching(held_run) as batcher:
        with model.held(batcher):
            futures = batcher.submit([1, CULPRIT, 2])
        assert [outcome(future) for future in futures] == [2, None, 4]


@pytest.mark.parametrize("run", [failing, one_short, one_too_many])
def test_a_failure_does_not_end_the_loop(run: Run) -> None:
    with batching(run) as batcher:
        assert outcome(batcher.submit([CULPRIT])[0]) is None
        assert batcher.alive
        assert value(batcher.submit([4])[0]) == 8


@pytest.mark.parametrize(
    ("error", "detail"),
    [(InferenceFailed("out of memory"), "out of memory"), (ValueError("secret"), "see the log")],
)
def test_only_the_services_own_errors_reach_the_caller(error: Exception, detail: str) -> None:
    def run(*_: object) -> list[int]:
        raise error

    with batching(run) as batcher:
        (future,) = batcher.submit([1])
        with pytest.raises(InferenceFailed) as failure:
            future.result(PATIENCE_S)
    assert failure.value.detail == detail


def test_many_threads_each_get_their_own_results() -> None:
    threads, each = 8, 200
    model = Model()
    together = threading.Barrier(threads)

    def ask(thread: int, batcher: Batcher[int, int]) -> list[int]:
        together.wait(PATIENCE_S)
        futures: list[Future[Done[int]]] = []
        for item in range(thread * each, (thread + 1) * each, 2):
            futures += batcher.submit([item, item + 1], key=item % 3)
        return [value(future) for future in futures]

    with batching(model, threads * each) as batcher, ThreadPoolExecutor(threads) as pool:
        answers = pool.map(ask, range(threads), [batcher] * threads)
        assert [answer for answers_ in answers for answer in answers_] == [
            2 * item for item in range(threads * each)
        ]
    assert max(len(items) for _, items in model.batches) <= MAX_BATCH


def test_threads_run_at_the_same_time_and_share_what_has_queued() -> None:
    both = threading.Barrier(2)

    def run(items: Sequence[int], _: object) -> list[int]:
        both.wait(PATIENCE_S)
        return list(items)

    with batching(run, threads=2) as batcher:
        assert [value(future) for future in batcher.submit([1, 2])] == [1, 2]
        assert batcher.counts.batch_sizes == {1: 2}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_that_was_waited_for_is_not_shared_out(threads: int) -> None:
    model = Model()
    with batching(model, threads=threads, max_wait_s=PATIENCE_S) as batcher:
        assert [value(future) for future in batcher.submit(range(MAX_BATCH))] == [0, 2, 4, 6]
    assert model.batches == [(None, list(range(MAX_BATCH)))]


@pytest.mark.parametrize("run", [failing, one_short, one_too_many])
def test_only_culprits_fail_whichever_thread_they_meet(run: Run) -> None:
    with batching(run, max_queue_items=60, threads=3) as batcher:
        futures = batcher.submit([*range(20)] * 3)
        found = [outcome(future) for future in futures]
        assert batcher.alive
    assert found == [None if item == CULPRIT else 2 * item for item in range(20)] * 3
    counts = batcher.counts
    assert (counts.accepted, counts.answered, counts.failed) == (60, 57, 3)


def test_a_queue_is_busy_from_the_first_slot_to_the_last_result() -> None:
    model = Model()
    with batching(model) as batcher:
        assert not batcher.busy
        with batcher.admit():
            assert batcher.busy
        assert not batcher.busy
        with model.held(batcher):
            assert batcher.busy
            (waiting,) = batcher.submit([1])
            assert waiting.cancel()
            assert batcher.busy
        assert not batcher.busy
        assert batcher.accepted == 2
