"""One line on a terminal while an epoch runs, and one that stays when it has ended."""

import sys
import time
from datetime import timedelta
from typing import Any

from torch import Tensor

_EVERY_S = 1.0
_SMOOTHING = 0.9


class Progress:
    """Of one run; steps are counted from the first that this process takes."""

    def __init__(self, epochs: int, epoch: int, steps_per_epoch: int, batch_size: int) -> None:
        self._epochs, self._epoch, self._steps = epochs, epoch, steps_per_epoch
        self._batch_size = batch_size
        self._done = 0
        self._started = self._shown = time.monotonic()
        self._loss: float | None = None

    def step(self, count: int, error: Tensor) -> None:
        """`count` steps of this epoch are done; the last had this loss."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown < _EVERY_S or not sys.stderr.isatty():
            return
        self._shown = now
        latest = error.item()
        before = latest if self._loss is None else self._loss
        self._loss = _SMOOTHING * before + (1 - _SMOOTHING) * latest
        print(
            f"\repoch {self._epoch + 1}/{self._epochs}, step {count}/{self._steps}, "
            f"loss {self._loss:.3f}, {self._per_second():.0f} images/s, {self._left(count)} left",
            end="\x1b[K",
            file=sys.stderr,
        )

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch has ended with these metrics."""
        self._epoch += 1
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        stages = " ".join(
            f"{stage} {len(metrics[stage]['similar'])}/{len(metrics[stage]['collapsed'])}"
            for stage in ("softmax", "reattention")
            if stage in metrics
        )
        print(
            f"{clear}epoch {self._epoch}/{self._epochs}: loss {metrics['loss']:.3f}, "
            f"test accuracy {metrics['test_accuracy']:.2%}, "
            f"similar/collapsed blocks {stages}, "
            f"{metrics['images_per_s']:.0f} images/s, {self._left(0)} left",
            file=sys.stderr,
            flush=True,
        )

    def _per_second(self) -> float:
        return self._done * self._batch_size / (time.monotonic() - self._started)

    def _left(self, count: int) -> timedelta:
        """Until the last epoch ends, by the speed so far."""
        steps = (self._epochs - self._epoch) * self._steps - count
        return timedelta(seconds=round(steps * self._batch_size / max(1e-9, self._per_second())))
