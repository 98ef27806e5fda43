"""The batcher's policy, line by line, with the model's thread held or let go by hand."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InferenceFailed, QueueFull, Stopped
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


def submit_until_refused(batcher: Batcher[int, int]) -> None:
    for _ in range(10**6):
        batcher.submit([])


def test_stopping_finishes_what_is_queued_and_takes_no_more() -> None:
    model = Model()
    with batching(model) as batcher, ThreadPoolExecutor() as pool:
        with model.held(batcher):
            futures = batcher.submit(range(6))
            stopped = pool.submit(batcher.stop)
            with pytest.raises(Stopped):
                submit_until_refused(batcher)
        assert [value(future) for future in futures] == [2 * item for item in range(6)]
        stopped.result(PATIENCE_S)
        assert not batcher.alive


def test_an_idle_batcher_stops_and_may_be_stopped_again() -> None:
    with batching(Model()) as batcher:
        assert batcher.alive
        batcher.stop()
        assert not batcher.alive
        with pytest.raises(Stopped):
            batcher.submit([1])


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_dead_thread_of_several_is_not_alive_and_leaves_nobody_waiting() -> None:
    dying: list[threading.Thread] = []

    def run(*_: object) -> list[int]:
        dying.append(threading.current_thread())
        raise KeyboardInterrupt

    with batching(run, threads=2) as batcher:
        (future,) = batcher.submit([1])
        with pytest.raises(InferenceFailed):
            future.result(PATIENCE_S)
        dying[0].join(PATIENCE_S)
        assert not batcher.alive
        with pytest.raises(Stopped):
            batcher.submit([2])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_comes_while_the_thread_dies_does_not_wait_for_it() -> None:
    model = Model()

    def run(items: Sequence[int], key: Hashable) -> Sequence[int]:
        model(items, key)
        raise KeyboardInterrupt

    late: list[Future[Done[int]]] = []
    with batching(run) as batcher, batcher.admit() as admission:
        model.hold()
        (running,) = batcher.submit([0])
        assert model.entered.wait(PATIENCE_S)
        (queued,) = batcher.submit([1])
        queued.add_done_callback(lambda _: late.extend(admission.submit([2])))
        model.release()
        # Both are failed by the thread that dies, and so is what came while it did.
        assert [outcome(future) for future in (running, queued)] == [None, None]
        batcher._threads[0].join(PATIENCE_S)
        assert outcome(late[0]) is None
    assert batcher.counts.in_flight == 0


def test_what_was_admitted_before_stopping_is_answered_while_a_thread_is_left() -> None:
    entered, released = threading.Event(), threading.Event()
    busy: list[threading.Thread] = []

    def run(items: Sequence[int], _: Hashable) -> Sequence[int]:
        busy.append(threading.current_thread())
        entered.set()
        assert released.wait(PATIENCE_S)
        return items

    with batching(run, threads=2) as batcher, ThreadPoolExecutor() as pool:
        with batcher.admit() as admission:
            futures = batcher.submit([1])
            assert entered.wait(PATIENCE_S)
            stopped = pool.submit(batcher.stop)
            (idle,) = set(batcher._threads) - set(busy)
            idle.join(PATIENCE_S)
            futures += admission.submit([2])
        released.set()
        assert [value(future) for future in futures] == [1, 2]
        stopped.result(PATIENCE_S)


def test_who_is_admitted_but_comes_after_the_last_thread_has_stopped_is_told_so() -> None:
    with batching(Model()) as batcher, batcher.admit() as admission:
        batcher.stop()
        (future,) = admission.submit([1])
        with pytest.raises(Stopped):
            future.result(PATIENCE_S)
    assert batcher.counts.in_flight == 0


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


def test_several_threads_finish_what_is_queued_before_they_stop() -> None:
    model = Model()
    with batching(model, threads=3) as batcher, ThreadPoolExecutor() as pool:
        with model.held(batcher):
            futures = batcher.submit(range(MAX_QUEUE - 1))
            stopped = pool.submit(batcher.stop)
            with pytest.raises(Stopped):
                submit_until_refused(batcher)
        stopped.result(PATIENCE_S)
        assert [future.result(0).value for future in futures] == [*range(0, 2 * MAX_QUEUE - 2, 2)]
    assert not batcher.alive
    assert batcher.counts.in_flight == batcher._reserved == 0


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
