"""How a network runs fastest on a processor: one batch at a time on all threads, or several at a
time on one thread each.

Threads inside an operator wait for each other hundreds of times a run. A small network loses more
by that than it gains, and a few images at once stay in the cache of a core. Which way is faster
depends on the network and the machine, so it is measured. Where several at a time are faster but
one alone is not, a batch beside which there is nothing else to do has all threads. Knows arrays,
nothing of models.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from models.arrays import Pixels

Run = Callable[[Pixels], object]

_BATCHES = (1, 2, 4, 8)
_BATCH_GAIN = 1.05  # how much faster an image must be in a larger batch, for that to be taken
_ALONE_GAIN = 1.1  # how much faster all threads must be for an image that comes alone
_HANDOVER_S = 0.001  # what a batch costs besides its run, under load: threads wait for each other
_ROUNDS = 3
_BUDGET_S = 0.5  # for each measurement; a slow network is run once


class Plan(NamedTuple):
    instances: int  # batches that run at the same time
    threads: int  # that each of them uses
    batch: int  # the most images in each of them
    alone: int | None = None  # threads of a batch beside which there is none, if they are more

    # Explanations are rare, so that one seldom runs beside another: where a batch that is alone has
    # all threads, they have them too, one at a time.

    @property
    def explain_instances(self) -> int:
        return 1 if self.alone else self.instances

    @property
    def explain_threads(self) -> int:
        return self.alone or self.threads


def fastest(
    threaded: Run, single: Run, threads: int, image_shape: tuple[int, ...], max_batch_size: int
) -> Plan:
    """Compare `threaded`, which uses all threads in every operator, with `single`, which uses one.

    Both are run on batches of zeros, since content does not change the time. That takes a second
    or so for small networks, and a few runs for large ones.
    """
    images = np.zeros((max_batch_size, *image_shape), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        instances = partial(_run_instances, pool, single, threads)
        instances_s, instances_batch = _best_batch(instances, threads, images)
    batch_s = instances_s * min(instances_batch * threads, max_batch_size) - _HANDOVER_S
    if batch_s < _HANDOVER_S:
        return Plan(1, 1, max_batch_size)  # not worth waking threads for
    threaded_s, threaded_batch = _best_batch(threaded, 1, images)
    alone_threaded_s, alone_single_s = (
        _seconds_per_image(run, images[:1]) for run in (threaded, single)
    )
    if threaded_s < instances_s:
        return Plan(1, threads, threaded_batch)
    # An image that comes alone should not wait while threads are idle.
    waits = alone_single_s > _ALONE_GAIN * alone_threaded_s
    return Plan(threads, 1, instances_batch, alone=threads if waits else None)


def _best_batch(run: Run, instances: int, images: Pixels) -> tuple[float, int]:
    """Seconds per image at the best batch size, handover included, and that size per instance."""
    best_s, best_size = float("inf"), 0
    for size in _BATCHES:
        batch = images[: size * instances]
        seconds = _seconds_per_image(run, batch) + _HANDOVER_S / len(batch)
        if seconds * _BATCH_GAIN > best_s:
            break
        best_s, best_size = seconds, size
        if len(batch) == len(images):
            break
    return best_s, best_size


def _run_instances(pool: ThreadPoolExecutor, run: Run, instances: int, images: Pixels) -> None:
    """Run all instances at the same time, each on its share of the images."""
    for _ in pool.map(run, np.array_split(images, min(instances, len(images)))):
        pass


def _seconds_per_image(run: Run, batch: Pixels) -> float:
    """The best of a few rounds; the first round only counts if it used up the budget."""
    best = float("inf")
    begun = time.perf_counter()
    for round_ in range(_ROUNDS + 1):
        started = time.perf_counter()
        run(batch)
        ended = time.perf_counter()
        if round_ or ended - begun > _BUDGET_S:
            best = min(best, ended - started)
        if ended - begun > _BUDGET_S:
            break
    return best / len(batch)
