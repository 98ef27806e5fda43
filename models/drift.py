"""Has a model's behaviour drifted from what was normal? The statistic, and its threshold.

Drift is the largest, over all signals, of the standardised difference between the mean of the
images at hand and the mean of the reference:

    |mean - reference mean| / (tail * spread * sqrt(1 / images + 1 / reference images))

It is about 2 to 4 for ordinary images, since it is the largest of some hundred differences that are
each about standard normal. The tail is 1 for a signal whose means are normally distributed, and
more if some images are far from all others. What is far for one model is not for another, whose
signals depend on each other in other ways; so tails and threshold are found by the bootstrap:
windows drawn from the reference itself, with replacement, differ from all of it as windows of other
ordinary images differ from the mean of endlessly many.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.arrays import Float64Array
from models.stages import Stage

WINDOW = 100  # images that are compared with the reference
LEAST_IN_WINDOW = 50  # fewer tell nothing
FALSE_ALARMS = 0.0001  # share of windows of ordinary images that are beyond the threshold

LEAST_IMAGES = 2 * WINDOW  # of a reference, from which windows are drawn

_DRAWS = 50_000
_TAIL, _NORMAL_TAIL = 0.001, 3.29  # a normal difference is beyond it in this share of windows
_LEAST_SPREAD = 1e-6  # a signal that hardly varies is constant but for rounding


class Signal(NamedTuple):
    """A number that each image gives: a measure, of one block and stage if it is of any."""

    measure: str
    stage: Stage | None = None
    block: int | None = None  # for similarities between blocks, compared with the one before it


@dataclass(frozen=True)
class Moments:
    """Of some images: their number, and of each signal [S] mean and standard deviation."""

    images: float
    mean: Float64Array
    spread: Float64Array
    tail: Float64Array | float = 1.0

    @classmethod
    def of(cls, values: Float64Array) -> "Moments":
        """From the values of each image [N, S]."""
        return cls(len(values), values.mean(axis=0), values.std(axis=0))


def deviations(mean: Float64Array, images: Float64Array | int, reference: Moments) -> Float64Array:
    """The standardised difference of each signal, with its sign: [.., S] to [.., S].

    0 for signals that are constant in the reference.
    """
    varies = reference.spread > _LEAST_SPREAD
    scale = (
        reference.tail * reference.spread * np.sqrt(1 / np.asarray(images) + 1 / reference.images)
    )
    return np.divide(mean - reference.mean, scale, out=np.zeros_like(mean), where=varies)


def drift(deviations: Float64Array) -> Float64Array:
    """The largest difference: [.., S] to [..]."""
    largest: Float64Array = np.abs(deviations).max(axis=-1, initial=0)
    return largest


def tails_and_threshold(values: Float64Array, seed: int = 0) -> tuple[Float64Array, float]:
    """From the values of the reference's images [N, S]: the tail of each signal [S], and the drift
    that `FALSE_ALARMS` of windows of ordinary images exceed.
    """
    draw = np.random.default_rng(seed)
    whole = Moments.of(values)
    endless = Moments(math.inf, whole.mean, whole.spread)
    windows = (values[draw.integers(len(values), size=WINDOW)] for _ in range(_DRAWS))
    means = np.stack([window.mean(axis=0) for window in windows])
    found = np.abs(deviations(means, WINDOW, endless))
    tails: Float64Array = np.quantile(found, 1 - _TAIL, axis=0).clip(_NORMAL_TAIL) / _NORMAL_TAIL
    return tails, float(np.quantile(drift(found / tails), 1 - FALSE_ALARMS))
