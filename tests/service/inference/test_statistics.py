"""Statistics add up, even if several threads update them at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.inference.statistics import Statistics


def test_nothing_has_happened_at_first() -> None:
    found = Statistics().snapshot()
    assert (found.images, found.executions, found.last_s, found.batches) == (0, 0, 0, {})


def test_requests_and_executions_are_counted_apart() -> None:
    statistics = Statistics()
    for size in (4, 1, 4):
        with statistics.execution(size):
            pass
    statistics.answered(9, queue_s=1, inference_s=2, total_s=4)
    statistics.failed(0.5)
    found = statistics.snapshot()
    assert {size: duration.count for size, duration in found.batches.items()} == {1: 1, 4: 2}
    assert (found.images, found.executions) == (9, 3)
    assert (found.success.count, found.success.seconds) == (1, 4)
    assert (found.failure.count, found.failure.seconds) == (1, 0.5)
    assert (found.queue.seconds, found.inference.seconds) == (1, 2)
    assert found.last_s > 0


def test_a_failed_execution_does_not_count() -> None:
    statistics = Statistics()
    with pytest.raises(ValueError, match="no"), statistics.execution(1):
        raise ValueError("no")
    assert statistics.snapshot().executions == 0


def test_a_snapshot_stays_as_it_is() -> None:
    statistics = Statistics()
    before = statistics.snapshot()
    statistics.answered(1, queue_s=0, inference_s=0, total_s=1)
    assert before.success.count == 0


def test_no_count_is_lost_between_threads() -> None:
    statistics = Statistics()

    def work(_: int) -> None:
        with statistics.execution(2):
            statistics.answered(2, queue_s=0, inference_s=0, total_s=0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(2000)))
    found = statistics.snapshot()
    assert (found.images, found.executions, found.success.count) == (4000, 2000, 2000)
