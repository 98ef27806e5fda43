"""What one served model has done so far: requests, images and batches, and the time they took.

Counts what it is told; knows nothing of queues, ONNX or HTTP.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass


@dataclass
class Duration:
    """How often something happened, and the seconds it took in total."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass(frozen=True)
class Snapshot:
    images: int
    last_s: float  # since the epoch; 0 before the first request
    success: Duration
    failure: Duration
    queue: Duration
    inference: Duration
    batches: Mapping[int, Duration]  # executions by batch size

    @property
    def executions(self) -> int:
        return sum(duration.count for duration in self.batches.values())


class Statistics:
    """Updated by the batch threads and the event loop at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images = 0
        self._last_s = 0.0
        self._success = Duration()
        self._failure = Duration()
        self._queue = Duration()
        self._inference = Duration()
        self._batches: defaultdict[int, Duration] = defaultdict(Duration)

    @contextmanager
    def execution(self, batch_size: int) -> Iterator[None]:
        """Time one run of the model, which is counted if it succeeds."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        with self._lock:
            self._batches[batch_size].add(seconds)

    def answered(self, images: int, *, queue_s: float, inference_s: float, total_s: float) -> None:
        """Count one request with this many images."""
        with self._lock:
            self._images += images
            self._last_s = time.time()
            self._success.add(total_s)
            self._queue.add(queue_s)
            self._inference.add(inference_s)

    def failed(self, total_s: float) -> None:
        with self._lock:
            self._last_s = time.time()
            self._failure.add(total_s)

    def snapshot(self) -> Snapshot:
        """A copy, taken at one moment."""
        with self._lock:
            return Snapshot(
                images=self._images,
                last_s=self._last_s,
                success=copy(self._success),
                failure=copy(self._failure),
                queue=copy(self._queue),
                inference=copy(self._inference),
                batches={size: copy(self._batches[size]) for size in sorted(self._batches)},
            )
