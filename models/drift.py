"""Has a model's behaviour drifted from what was normal? The statistic, and its threshold.

Drift is the largest, over all signals, of the standardised difference between the mean of the
images at hand and the mean of the reference:

    |mean - reference mean| / (spread * sqrt(1 / images + 1 / reference images))

It is about 3 to 4 for ordinary images, since it is the largest of some hundred differences that are
each about standard normal. What is far for one model is not for another, whose signals depend on
each other in other ways; so the threshold is found by drawing windows from the reference itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.arrays import Float64Array
from models.stages import Stage

WINDOW = 100  # images that are compared with the reference
FALSE_ALARMS = 0.001  # share of windows of ordinary images that are beyond the threshold

LEAST_IMAGES = 2 * WINDOW  # of a reference: some in a window, as many to compare it with

_DRAWS = 10_000
_LEAST_SPREAD = 1e-6  # a signal that hardly varies is constant but for rounding


class Signal(NamedTuple):
    """A number that each image gives: a measure, of one block and stage if it is of any."""

    measure: str
    stage: Stage | None = None
    block: int | None = None  # for similarities between blocks, compared with the one before it


@dataclass(frozen=True)
class Moments:
    """Of some images: their number, and of each signal [S] mean and standard deviation."""

    images: int
    mean: Float64Array
    spread: Float64Array

    @classmethod
    def of(cls, values: Float64Array) -> "Moments":
        """From the values of each image [N, S]."""
        return cls(len(values), values.mean(axis=0), values.std(axis=0))


def deviations(mean: Float64Array, images: Float64Array | int, reference: Moments) -> Float64Array:
    """The standardised difference of each signal, with its sign: [.., S] to [.., S].

    0 for signals that are constant in the reference.
    """
    varies = reference.spread > _LEAST_SPREAD
    scale = reference.spread * np.sqrt(1 / np.asarray(images) + 1 / reference.images)
    return np.divide(mean - reference.mean, scale, out=np.zeros_like(mean), where=varies)


def drift(deviations: Float64Array) -> Float64Array:
    """The largest difference: [.., S] to [..]."""
    largest: Float64Array = np.abs(deviations).max(axis=-1, initial=0)
    return largest


def threshold(values: Float64Array, seed: int = 0) -> float:
    """The drift that `FALSE_ALARMS` of windows of ordinary images exceed; values are [N, S].

    Each of many windows is drawn from the images, and compared with those that are left.
    """
    draw = np.random.default_rng(seed)
    N = len(values)
    whole, squares = values.sum(axis=0), np.square(values).sum(axis=0)
    found = np.empty(_DRAWS)
    for index in range(_DRAWS):
        window = values[draw.choice(N, WINDOW, replace=False, shuffle=False)]
        rest = N - WINDOW
        mean = (whole - window.sum(axis=0)) / rest
        variance = (squares - np.square(window).sum(axis=0)) / rest - np.square(mean)
        others = Moments(rest, mean, np.sqrt(variance.clip(0)))
        found[index] = drift(deviations(window.mean(axis=0), WINDOW, others))
    return float(np.quantile(found, 1 - FALSE_ALARMS))
