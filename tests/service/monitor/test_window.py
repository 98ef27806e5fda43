"""Sums over windows add up, and a window forgets what is older than its size."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.arrays import Float32Array
from models.drift import WINDOW, Moments
from service.monitor.record import HISTORY, Export, Point, Record, Samples, added
from service.monitor.window import Sums, Window

SIGNALS, CLASSES = 5, 3


def images(count: int, seed: int = 0) -> tuple[Float32Array, list[int]]:
    draw = np.random.default_rng(seed)
    values = draw.normal(50, 2, (count, SIGNALS)).astype(np.float32)
    return values, draw.integers(CLASSES, size=count).tolist()


def sums_of(values: Float32Array, answers: Sequence[int], begin_s: float = 0) -> Sums:
    window = Window(SIGNALS, CLASSES)
    for time_s, (value, answer) in enumerate(zip(values, answers, strict=True)):
        window.add(value, answer, begin_s + time_s)
    return window.sums()


def test_nothing_is_older_than_the_newest_hundred() -> None:
    values, answers = images(WINDOW + 30)
    found = sums_of(values, answers)
    expected = Moments.of(values[-WINDOW:].astype(np.float64))
    assert (found.images, found.since) == (WINDOW, 30)
    np.testing.assert_allclose(found.moments.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.moments.spread, expected.spread, rtol=1e-9)
    assert found.classes.tolist() == [answers[30:].count(index) for index in range(CLASSES)]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, WINDOW))
def test_two_windows_add_up_to_one_over_all_of_their_images(here: int) -> None:
    values, answers = images(WINDOW)
    whole = sums_of(values, answers)
    both = sums_of(values[:here], answers[:here]) + sums_of(values[here:], answers[here:], here)
    assert both.images == whole.images
    assert both.since == whole.since
    np.testing.assert_array_equal(both.classes, whole.classes)
    np.testing.assert_allclose(both.moments.mean, whole.moments.mean, rtol=1e-12)
    np.testing.assert_allclose(both.moments.spread, whole.moments.spread, rtol=1e-9)


def test_records_of_processes_add_up_by_export() -> None:
    values, answers = images(40)
    one, other, anew = Export("a", 1, "x"), Export("b", 1, "x"), Export("a", 1, "y")

    def record(start: int, end: int, *times_s: float) -> Record:
        points = tuple(Point(time_s, 2.0, 50) for time_s in times_s)
        sums = sums_of(values[start:end], answers[start:end])
        return Record(Samples(end - start, 2, 1, 3), sums, points)

    found = added(
        [
            {one: record(0, 10, 1, 3), other: record(10, 15)},
            {one: record(15, 40, 2), anew: record(0, 40)},
        ]
    )
    assert found.keys() == {one, other, anew}
    assert found[one].samples == Samples(35, 4, 2, 6)
    assert found[one].sums.images == 35
    assert [point.time_s for point in found[one].history] == [1, 2, 3]
    assert found[anew].sums.images == 40


def test_the_newest_points_of_all_processes_are_kept() -> None:
    sums = Sums.none(SIGNALS, CLASSES)
    even, odd = (
        Record(Samples(), sums, tuple(Point(2 * i + first, 1.0, 50) for i in range(HISTORY)))
        for first in range(2)
    )
    kept = [point.time_s for point in (even + odd).history]
    assert kept == list(range(HISTORY, 2 * HISTORY))


def test_no_images_have_no_oldest_one() -> None:
    assert sums_of(*images(0)).since is None
    assert (Sums.none(SIGNALS, CLASSES) + sums_of(*images(3))).since == pytest.approx(0)
