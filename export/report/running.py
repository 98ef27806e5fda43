"""Means over images in one pass, with confidence intervals. Knows numbers only."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from models.arrays import Float64Array

CONFIDENCE = 0.95
_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Estimate:
    """Means over images, entry by entry."""

    mean: Float64Array
    half_width: Float64Array  # of the confidence interval of each mean; NaN from a single image
    images: int

    @property
    def low(self) -> Float64Array:
        return self.mean - self.half_width

    @property
    def high(self) -> Float64Array:
        return self.mean + self.half_width


class Running:
    """Mean and variance of arrays that come batch by batch, in the memory of two of them.

    Welford's update, for batches: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances" (1979).
    """

    def __init__(self) -> None:
        self._images = 0
        self._mean: Float64Array = np.zeros(())
        self._squares: Float64Array = np.zeros(())  # of differences to the mean, summed

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """[B, ...], one entry an image."""
        batch = len(values)
        mean = values.mean(axis=0, dtype=np.float64)
        squares = np.square(values - mean).sum(axis=0)
        images = self._images + batch
        shift = mean - self._mean
        self._mean = self._mean + shift * (batch / images)
        self._squares = self._squares + squares + shift**2 * (self._images * batch / images)
        self._images = images

    def estimate(self) -> Estimate:
        """With intervals that take the images as independent draws, and their mean as normal."""
        variance = (
            self._squares / (self._images - 1)
            if self._images > 1
            else np.full_like(self._squares, np.nan)
        )
        return Estimate(self._mean, _QUANTILE * np.sqrt(variance / self._images), self._images)
