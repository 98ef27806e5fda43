"""When an image may be measured: while no model has work, and at a bounded share of the time."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

SHARE = 0.02  # of the time, where requests keep coming


class Queue(Protocol):
    """The part of a batcher that is looked at here."""

    @property
    def busy(self) -> bool: ...
    @property
    def accepted(self) -> int: ...


class Pace:
    """Requests that come while an image is measured share the processor with that.

    So none is begun unless nothing has come for as long as one takes; or, where requests keep
    coming, unless the last one took no more than `SHARE` of the time since it began.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._cost_s = 0.0  # of the last image
        self._rested_at = -math.inf  # when it has taken no more than its share
        self._accepted = 0
        self._quiet_since = -math.inf

    def allows(self, queues: Iterable[Queue]) -> bool:
        """Whether one may be begun now; to be asked again and again."""
        found = list(queues)
        now = self._clock()
        busy = any(queue.busy for queue in found)
        accepted = sum(queue.accepted for queue in found)
        if busy or accepted != self._accepted:
            self._accepted = accepted
            self._quiet_since = now
        if busy:
            return False
        return now >= self._quiet_since + self._cost_s or now >= self._rested_at

    def took(self, seconds: float) -> None:
        """Note how long the image took that has just been measured."""
        self._cost_s = seconds
        self._rested_at = self._clock() + seconds * (1 / SHARE - 1)
