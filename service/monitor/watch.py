"""One version under watch: the images that wait to be measured, and what was measured.

Knows nothing of when images are measured, nor by what.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np

from models.arrays import Float32Array, Pixels
from models.drift import Signal
from models.manifest import Manifest
from models.signals import Signals
from service.monitor.findings import Findings
from service.monitor.record import HISTORY, Point, Record, Samples
from service.monitor.window import IntArray, Window

WAITING = 16  # images that wait, at most
BOUNDS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)  # of similarity
_POINT_EVERY = 10  # images


class Sample(NamedTuple):
    """An image that was answered, and its logits if they were part of the answer."""

    pixels: Pixels
    logits: Float32Array | None
    offered: float  # a time of time.perf_counter


class NotFinite(ValueError):
    """A signal of an image is not a finite number."""


@dataclass
class Histogram:
    """How similar a block is to the one before it, over all images that were measured."""

    counts: IntArray = field(default_factory=lambda: np.zeros(len(BOUNDS) + 1, np.int64))
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts[np.searchsorted(BOUNDS, value)] += 1
        self.total += value

    @property
    def up_to(self) -> list[int]:
        """Images up to each of `BOUNDS`, then all."""
        return [int(count) for count in self.counts.cumsum()]


class Watch:
    """Used by the threads that answer, that measure, and that read."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.signals = Signals(manifest)
        self._window = Window(len(self.signals.names), len(manifest.labels))
        self._histograms = {
            signal: Histogram()
            for signal in self.signals.names
            if signal.measure == "similarity.column"
        }
        self._history: deque[Point] = deque(maxlen=HISTORY)
        self._waiting: deque[Sample] = deque()
        self._under_way = self._measured = self._dropped = self._failed = 0
        self._reasons: set[type[Exception]] = set()
        self._lock = Lock()

    def take(self, sample: Sample) -> None:
        """Let an image wait; the oldest one is dropped if too many do."""
        with self._lock:
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(sample)

    def next(self) -> Sample | None:
        """The oldest that waits; `add`, `fail` or `drop` tells what became of it."""
        with self._lock:
            if not self._waiting:
                return None
            self._under_way += 1
            return self._waiting.popleft()

    def add(self, sample: Sample, outputs: Mapping[str, Float32Array]) -> None:
        """Count an image by the outputs of the explain graph. Raises `NotFinite`."""
        values = self.signals.read(outputs)
        if not np.isfinite(values).all():
            raise NotFinite(f"signals of {self.manifest.name} are not finite")
        logits = outputs["logits"] if sample.logits is None else sample.logits
        with self._lock:
            self._under_way -= 1
            self._measured += 1
            now = time.time()
            self._window.add(values, int(logits.argmax()), now)
            for signal, value in zip(self.signals.names, values, strict=True):
                if signal in self._histograms:
                    self._histograms[signal].add(float(value))
            if self._measured % _POINT_EVERY == 0:
                self._add_point(now)

    def fail(self, reason: Exception) -> bool:
        """Count an image that could not be measured; whether it is the first for such a reason."""
        with self._lock:
            self._under_way -= 1
            self._failed += 1
            known = type(reason) in self._reasons
            self._reasons.add(type(reason))
            return not known

    def drop(self) -> None:
        """Count an image under way as dropped."""
        with self._lock:
            self._under_way -= 1
            self._dropped += 1

    def drop_waiting(self) -> None:
        with self._lock:
            self._dropped += len(self._waiting)
            self._waiting.clear()

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def oldest(self) -> float:
        """When the image was offered that has waited longest."""
        with self._lock:
            return self._waiting[0].offered if self._waiting else math.inf

    def record(self) -> Record:
        """A copy, taken at one moment."""
        with self._lock:
            samples = Samples(
                self._measured, self._dropped, self._failed, len(self._waiting) + self._under_way
            )
            return Record(samples, self._window.sums(), tuple(self._history))

    def histograms(self) -> dict[Signal, Histogram]:
        """A copy, taken at one moment."""
        with self._lock:
            return {
                signal: Histogram(one.counts.copy(), one.total)
                for signal, one in self._histograms.items()
            }

    def _add_point(self, now: float) -> None:
        sums = self._window.sums()
        drift = Findings(self.manifest, sums).drift
        if drift is not None:
            self._history.append(Point(now, drift, sums.images))
