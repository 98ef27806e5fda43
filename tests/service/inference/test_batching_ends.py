"""How a batcher ends: what is queued or admitted is answered or told, and nobody waits for ever."""

import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service.errors import InferenceFailed, Stopped
from service.inference.batching import Batcher, Done
from tests.service.inference.batchers import (
    MAX_QUEUE,
    PATIENCE_S,
    Model,
    batching,
    outcome,
    value,
)


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
