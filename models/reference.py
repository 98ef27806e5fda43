"""What is normal of a model: its signals over ordinary images, and when they have drifted.

Measured by the export over a folder of images; kept in the manifest, and in a file by itself beside
a checkpoint whose images are elsewhere.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models import drift
from models.arrays import Float64Array
from models.drift import Moments, Signal
from models.stages import Stage

_DIGITS = 6  # that are kept of a number


class Normal(BaseModel):
    """Mean and standard deviation over images of one measure, for each of some blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    measure: str
    stage: Stage | None = None
    blocks: tuple[int, ...] = Field(default=(), description="none for what is not of a block")
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    tail: tuple[float, ...] = Field(description="of the means of windows; 1 if they are normal")


class Reference(BaseModel):
    """Ordinary images, as this model saw them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    images: int
    measures: tuple[Normal, ...]
    class_shares: tuple[float, ...] = Field(description="share of images answered with each class")
    window: int = Field(description="images that are compared with these")
    threshold: float = Field(description="drift beyond it is an alarm")
    false_alarms: float = Field(description="share of windows of ordinary images beyond it")

    @classmethod
    def of(
        cls, signals: Sequence[Signal], values: Float64Array, classes: Float64Array
    ) -> "Reference":
        """From the values of each image [N, S], and how many were answered with each class."""
        moments = Moments.of(values)
        tails, threshold = drift.tails_and_threshold(values)
        numbers = map(_rounded, (moments.mean, moments.spread, tails))
        rows = list(zip(signals, *numbers, strict=True))
        return cls(
            images=len(values),
            measures=tuple(
                Normal(
                    measure=measure,
                    stage=stage,
                    blocks=tuple(signal.block for signal, *_ in group if signal.block is not None),
                    mean=tuple(mean for _, mean, _, _ in group),
                    spread=tuple(spread for _, _, spread, _ in group),
                    tail=tuple(tail for *_, tail in group),
                )
                for (measure, stage), group in (
                    (key, list(found)) for key, found in groupby(rows, key=lambda row: row[0][:2])
                )
            ),
            class_shares=_rounded(classes / classes.sum()),
            window=drift.WINDOW,
            threshold=round(threshold, 3),
            false_alarms=drift.FALSE_ALARMS,
        )

    def moments(self, signals: Sequence[Signal]) -> Moments:
        """Of these signals, in their order; NaN for those that were not measured."""
        known = {
            Signal(one.measure, one.stage, block): values
            for one in self.measures
            for block, *values in zip(
                one.blocks or (None,), one.mean, one.spread, one.tail, strict=True
            )
        }
        nan = (np.nan, np.nan, np.nan)
        mean, spread, tail = np.array([known.get(signal, nan) for signal in signals]).T
        return Moments(self.images, mean, spread, tail)


def _rounded(values: Float64Array) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
