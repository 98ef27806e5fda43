"""Means and intervals against the formulas, and what a single image can tell."""

import math

import numpy as np

from export.report.running import Running


def test_batches_add_up_to_the_mean_and_its_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, (23, 4, 5)).astype(np.float32)
    running = Running()
    for batch in np.split(values, [1, 9, 17]):
        running.add(batch)
    found = running.estimate()
    exact = values.astype(np.float64)
    half_width = 1.959964 * exact.std(axis=0, ddof=1) / math.sqrt(23)
    assert found.images == 23
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.half_width, half_width, rtol=1e-6)
    np.testing.assert_allclose(found.high - found.low, 2 * half_width, rtol=1e-6)


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    values = 1e6 + np.random.default_rng(1).normal(0, 1e-3, (1000, 1))
    running = Running()
    for batch in np.split(values, 125):
        running.add(batch)
    expected = 1.959964 * values.std(axis=0, ddof=1) / math.sqrt(1000)
    np.testing.assert_allclose(running.estimate().half_width, expected, rtol=1e-3)


def test_one_image_has_a_mean_but_no_interval() -> None:
    running = Running()
    running.add(np.ones((1, 3), np.float32))
    found = running.estimate()
    assert (found.mean == 1).all()
    assert np.isnan(found.half_width).all()


def test_an_entry_that_is_not_defined_leaves_the_others_alone() -> None:
    running = Running()
    for _ in range(2):
        running.add(np.array([[np.nan, 1], [np.nan, 3]]))
    found = running.estimate()
    assert np.isnan(found.mean[0])
    assert found.mean[1] == 2
    assert found.half_width[1] > 0
