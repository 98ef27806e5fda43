"""What the window of a version says: measures by block, drift from the reference, collapse.

Knows the manifest and sums; nothing of how images were measured.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np

from models import collapse, drift
from models.arrays import Float64Array
from models.collapse import THRESHOLD
from models.drift import LEAST_IN_WINDOW, Moments, Signal
from models.manifest import Manifest
from models.signals import Signals
from models.stages import Stage, stages
from service.monitor.window import Sums


class Measure(NamedTuple):
    """One measure at one stage, by block; one value for what is not of a block.

    Values of the reference, and how far the window is from them, are NaN where it has none.
    """

    measure: str
    stage: Stage | None
    blocks: tuple[int, ...]
    mean: Float64Array
    spread: Float64Array
    deviation: Float64Array
    reference_mean: Float64Array
    reference_spread: Float64Array


@dataclass(frozen=True)
class Findings:
    """Of one version, from the sums over its window."""

    manifest: Manifest
    sums: Sums

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """None if there is no image."""
        if not self.sums.images:
            return ()
        window, normal = self.sums.moments, self._normal
        rows = zip(
            self._signals,
            *(window.mean, window.spread, self.deviations, normal.mean, normal.spread),
            strict=True,
        )
        found = []
        for (measure, stage), group in groupby(rows, key=lambda row: row[0][:2]):
            signals, *values = zip(*group, strict=True)
            blocks = tuple(signal.block for signal in signals if signal.block is not None)
            found.append(Measure(measure, stage, blocks, *map(np.array, values)))
        return tuple(found)

    @cached_property
    def deviations(self) -> Float64Array:
        """The standardised difference of each signal to the reference [S], NaN if it has none."""
        normal = self._normal
        found = drift.deviations(self.sums.moments.mean, self.sums.images, normal)
        return np.where(np.isnan(normal.mean), np.nan, found)

    @cached_property
    def drift(self) -> float | None:
        """None without a reference, or with fewer than `LEAST_IN_WINDOW` images."""
        if self.manifest.reference is None or self.sums.images < LEAST_IN_WINDOW:
            return None
        return float(drift.drift(np.nan_to_num(self.deviations)))

    @property
    def alarm(self) -> bool | None:
        if self.manifest.reference is None or self.drift is None:
            return None
        return self.drift > self.manifest.reference.threshold

    def strongest(self, most: int) -> list[tuple[Signal, float]]:
        """The signals that are farthest from the reference, with their deviations."""
        if not self.sums.images:
            return []
        found = self.deviations
        order = np.argsort(-np.abs(found))  # NaN comes last
        return [(self._signals[i], float(found[i])) for i in order[:most] if abs(found[i]) > 0]

    @cached_property
    def similar_blocks(self) -> dict[Stage, tuple[int, ...]]:
        """By the paper's rule, on the mean of the window."""
        return {
            stage: collapse.similar_blocks(self._by_block("similarity.column", stage), THRESHOLD)
            for stage in stages(self.manifest.config)
        }

    @cached_property
    def collapsed_blocks(self) -> dict[Stage, tuple[int, ...]]:
        return {
            stage: collapse.collapsed_blocks(
                self._by_block("similarity.column", stage),
                self._by_block("similarity.row", stage),
                THRESHOLD,
            )
            for stage in stages(self.manifest.config)
        }

    @property
    def class_shares(self) -> Float64Array:
        """The share of images answered with each class [C]; of at least one image."""
        shares: Float64Array = self.sums.classes / self.sums.images
        return shares

    @property
    def class_distance(self) -> float | None:
        """The total variation between the answers and those of the reference, where `drift` is."""
        if self.manifest.reference is None or self.sums.images < LEAST_IN_WINDOW:
            return None
        normal = np.array(self.manifest.reference.class_shares)
        return float(np.abs(self.class_shares - normal).sum() / 2)

    @cached_property
    def _signals(self) -> tuple[Signal, ...]:
        return Signals(self.manifest).names

    @cached_property
    def _normal(self) -> Moments:
        if self.manifest.reference is not None:
            return self.manifest.reference.moments(self._signals)
        nan = np.full(len(self._signals), np.nan)
        return Moments(1, nan, nan)

    def _by_block(self, measure: str, stage: Stage) -> Float64Array:
        """The mean of a measure in each block [L], NaN where it has none."""
        values = np.full(self.manifest.config.depth, np.nan)
        for one in self.measures:
            if (one.measure, one.stage) == (measure, stage):
                values[list(one.blocks)] = one.mean
        return values
