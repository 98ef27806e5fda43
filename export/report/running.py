"""Means over images in one pass, with confidence intervals."""

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
    half_width: Float64Array  # of each mean's confidence interval; NaN for a single image
    images: int

    @property
    def low(self) -> Float64Array:
        return self.mean - self.half_width

    @property
    def high(self) -> Float64Array:
        return self.mean + self.half_width


class Running:
    """Mean and variance of arrays that come batch by batch, in the memory of two arrays.

    Welford's update for batches: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances" (1979).
    """

    def __init__(self) -> None:
        self._images = 0
        self._mean: Float64Array = np.zeros(())
        self._squares: Float64Array = np.zeros(())  # of differences to the mean, summed

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Add values [B, ...] of B images."""
        batch = len(values)
        mean = values.mean(axis=0, dtype=np.float64)
        squares = np.square(values - mean).sum(axis=0)
        images = self._images + batch
        shift = mean - self._mean
        self._mean = self._mean + shift * (batch / images)
        self._squares = self._squares + squares + shift**2 * (self._images * batch / images)
        self._images = images

    def estimate(self) -> Estimate:
        """Intervals assume that images are independent, and that their mean is normal."""
        variance = (
            self._squares / (self._images - 1)
            if self._images > 1
            else np.full_like(self._squares, np.nan)
        )
        return Estimate(self._mean, _QUANTILE * np.sqrt(variance / self._images), self._images)
