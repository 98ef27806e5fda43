"""How a network runs fastest on a processor: each run on all threads, or runs beside each other.

Threads inside an operator wait for each other hundreds of times a run. A small network loses more
by that than it gains, and a few images at once stay in the cache of a core. Which way is faster
depends on the network and the machine, so it is measured. Knows arrays, nothing of models.
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
_SOME_GAIN = 1.05  # what larger batches must win
_GAIN = 1.1  # what more throughput must win, and what a single image may lose by it
_HANDED_OVER_S = 0.001  # what a batch costs besides, under load: threads wait for each other
_ROUNDS = 3
_BUDGET_S = 0.5  # for each way; a slow network is measured once


class Plan(NamedTuple):
    instances: int  # runs at the same time
    threads: int  # of each
    batch: int  # images in each, at most


def fastest(
    whole: Run, alone: Run, threads: int, image: tuple[int, ...], max_batch_size: int
) -> Plan:
    """Compare `whole`, which uses all threads in every operator, with `alone`, which uses one.

    Batches of zeros: what is in them does not change the time. Takes a second or so at most for
    small networks, some runs for large ones.
    """
    images = np.zeros((max_batch_size, *image), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        beside = partial(_beside, pool, alone, threads)
        image_beside, batch_beside = _batch(beside, threads, images)
    batch_s = image_beside * min(batch_beside * threads, max_batch_size) - _HANDED_OVER_S
    if batch_s < _HANDED_OVER_S:
        return Plan(1, 1, max_batch_size)  # not worth waking threads for
    image_whole, batch_whole = _batch(whole, 1, images)
    single_whole, single_alone = (_seconds(run, images[:1]) for run in (whole, alone))
    # Who comes alone should not wait while threads are idle.
    if image_whole < _GAIN * image_beside or single_alone > _GAIN * single_whole:
        return Plan(1, threads, batch_whole)
    return Plan(threads, 1, batch_beside)


def _batch(run: Run, instances: int, images: Pixels) -> tuple[float, int]:
    """Seconds an image in batches of the best size, handed over, and that size of an instance."""
    best, found = float("inf"), 0
    for size in _BATCHES:
        batch = images[: size * instances]
        seconds = _seconds(run, batch) + _HANDED_OVER_S / len(batch)
        if seconds * _SOME_GAIN > best:
            break
        best, found = seconds, size
        if len(batch) == len(images):
            break
    return best, found


def _beside(pool: ThreadPoolExecutor, run: Run, instances: int, images: Pixels) -> None:
    """A share of the images for each instance, all at the same time."""
    for _ in pool.map(run, np.array_split(images, min(instances, len(images)))):
        pass


def _seconds(run: Run, batch: Pixels) -> float:
    """An image, in the best of some rounds after a first one, if that was not long enough."""
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
