"""The newest measured images of one version, and sums over them, which add up over processes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import Float32Array, Float64Array
from models.drift import WINDOW, Moments

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sums:
    """Over some images. S signals, C classes."""

    images: int
    total: Float64Array  # of the values of each signal [S]
    squares: Float64Array  # of their squares [S]
    classes: IntArray  # images answered with each class [C]
    since: float | None  # when the oldest of them was measured, in seconds since the epoch

    @classmethod
    def none(cls, signals: int, classes: int) -> "Sums":
        return cls(0, np.zeros(signals), np.zeros(signals), np.zeros(classes, np.int64), None)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.images + other.images,
            self.total + other.total,
            self.squares + other.squares,
            self.classes + other.classes,
            min((one for one in (self.since, other.since) if one is not None), default=None),
        )

    @property
    def moments(self) -> Moments:
        """Of at least one image."""
        mean = self.total / self.images
        variance = self.squares / self.images - np.square(mean)
        return Moments(self.images, mean, np.sqrt(variance.clip(0)))


class Window:
    """The values of the newest images, at most `WINDOW`."""

    def __init__(self, signals: int, classes: int) -> None:
        self._values = np.empty((WINDOW, signals))
        self._answers = np.empty(WINDOW, np.int64)
        self._times = np.empty(WINDOW)
        self._added = 0
        self._classes = classes

    def add(self, values: Float32Array, answer: int, time_s: float) -> None:
        """One image: its signals [S], the index of its class, and when it was measured."""
        place = self._added % WINDOW
        self._values[place], self._answers[place], self._times[place] = values, answer, time_s
        self._added += 1

    def sums(self) -> Sums:
        images = min(self._added, WINDOW)
        values = self._values[:images]
        return Sums(
            images,
            values.sum(axis=0),
            np.square(values).sum(axis=0),
            np.bincount(self._answers[:images], minlength=self._classes),
            float(self._times[:images].min()) if images else None,
        )
