"""Drift is small for images like the reference's, and grows with whatever changes."""

import numpy as np
import pytest

from models import drift
from models.arrays import Float64Array
from models.drift import WINDOW, Moments, Signal
from models.reference import Reference

SIGNALS = (
    *(Signal("entropy", "softmax", block) for block in range(12)),
    *(Signal("feature_similarity", None, block) for block in range(6)),
    Signal("confidence"),
)
S = len(SIGNALS)


def ordinary(count: int, seed: int) -> Float64Array:
    """Values that depend on each other, as the blocks of one network do: [count, S]."""
    draw = np.random.default_rng(seed)
    shared = draw.normal(size=(count, 3)) @ np.random.default_rng(0).normal(size=(3, S))
    return 5 + shared + draw.normal(size=(count, S))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of a thousand ordinary images."""
    return Reference.of(SIGNALS, ordinary(1000, 3), np.ones(2))


@pytest.fixture(scope="module")
def written() -> Reference:
    """Of fewer, which are of two classes out of three."""
    return Reference.of(SIGNALS, ordinary(300, 5), np.array([1.0, 0.0, 3.0]))


def test_deviations_are_standardised_differences_of_means() -> None:
    values = ordinary(400, 1)
    reference = Moments.of(values)
    window = ordinary(50, 2)
    error = values.std(axis=0) * np.sqrt(1 / 50 + 1 / 400)
    expected = (window.mean(axis=0) - values.mean(axis=0)) / error
    found = drift.deviations(window.mean(axis=0), 50, reference)
    np.testing.assert_allclose(found, expected)
    assert drift.drift(found) == pytest.approx(np.abs(expected).max())


def test_signals_that_are_constant_or_unknown_count_for_nothing() -> None:
    reference = Moments(100, np.array([1.0, 2.0, np.nan]), np.array([0.0, 1.0, np.nan]))
    found = drift.deviations(np.array([7.0, 2.0, 3.0]), 100, reference)
    np.testing.assert_array_equal(found, [0, 0, 0])


def test_few_windows_of_ordinary_images_are_beyond_the_threshold(reference: Reference) -> None:
    means = np.stack([ordinary(WINDOW, 100 + seed).mean(axis=0) for seed in range(1000)])
    beyond = (
        drift.drift(drift.deviations(means, WINDOW, reference.moments(SIGNALS)))
        > reference.threshold
    )
    assert beyond.mean() <= 10 * drift.FALSE_ALARMS


@pytest.mark.parametrize("signal", [0, 7, S - 1])
def test_a_change_of_one_signal_is_beyond_it(reference: Reference, signal: int) -> None:
    changed = ordinary(WINDOW, 4)
    changed[:, signal] += 0.8 * ordinary(1000, 3)[:, signal].std()
    found = drift.deviations(changed.mean(axis=0), WINDOW, reference.moments(SIGNALS))
    assert drift.drift(found) > reference.threshold
    assert np.abs(found).argmax() == signal


def test_a_reference_keeps_what_was_measured(written: Reference) -> None:
    values = ordinary(300, 5)
    read = Reference.model_validate_json(written.model_dump_json())
    found = read.moments(SIGNALS)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.spread, values.std(axis=0), rtol=1e-5)
    assert (found.images, read.class_shares) == (300, (0.25, 0, 0.75))
    tails, threshold = drift.tails_and_threshold(values)
    np.testing.assert_allclose(found.tail, tails, rtol=1e-5)
    assert read.threshold == pytest.approx(threshold, abs=1e-3)


def test_a_signal_of_which_few_images_are_far_off_has_a_long_tail() -> None:
    values = ordinary(1000, 6)
    values[:5, 2] += 100
    tails, _ = drift.tails_and_threshold(values)
    assert tails[2] > 1.2 > tails[np.arange(S) != 2].max()


def test_signals_that_a_reference_lacks_have_no_mean(written: Reference) -> None:
    asked = (Signal("entropy", "softmax", 12), *SIGNALS)
    assert np.flatnonzero(np.isnan(written.moments(asked).mean)).tolist() == [0]
