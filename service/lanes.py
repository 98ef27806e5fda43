"""A batch in pieces that run beside each other, one thread each, instead of one after the other
with all threads inside every operator.

Threads inside an operator wait for each other hundreds of times a run. A small network loses more
by that than it gains, and a piece of a batch stays in the cache of its core. Which way is faster
depends on the network and the machine, so it is measured. Knows arrays, nothing of models.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

_PIECES = (1, 2, 4, 8)
_SOME_GAIN = 1.05  # what larger pieces must win
_GAIN = 1.1  # what pieces must win to be worth their session's memory
_HANDED_OVER_S = 0.002  # a batch that takes no longer is not worth waking threads for
_ROUNDS = 3
_BUDGET_S = 0.5  # for each way; a slow network is measured once


class Ways(NamedTuple):
    """How single images and batches are run fastest."""

    single_whole: bool  # a single image gains from all threads
    piece: int | None = None  # images in a piece of a batch; None runs batches as single images


class Lanes:
    """Runs pieces of a batch on as many threads at once, the caller's among them."""

    def __init__(self, run: Run, lanes: int) -> None:
        self._run = run
        self._lanes = lanes
        self._others = ThreadPoolExecutor(lanes - 1, "lane")

    def run(self, images: npt.NDArray[np.uint8], piece: int) -> npt.NDArray[np.float32]:
        """[B, S, S, 3] to what `run` gives, in pieces of about this size, as even as may be."""
        count = -(-len(images) // piece)
        count = min(len(images), -(-count // self._lanes) * self._lanes)
        if count == 1:
            return self._run(images)
        done: list[Any] = [None] * count
        todo = iter(enumerate(np.array_split(images, count)))  # shared: each takes the next one
        helping = [
            self._others.submit(self._work, todo, done) for _ in range(min(self._lanes, count) - 1)
        ]
        try:
            self._work(todo, done)
        finally:
            for other in helping:
                other.result()
        return np.concatenate(done)

    def _work(self, todo: Iterator[tuple[int, npt.NDArray[np.uint8]]], done: list[Any]) -> None:
        for index, images in todo:
            done[index] = self._run(images)


def fastest(
    whole: Run, alone: Run, lanes: int, image: tuple[int, ...], max_batch_size: int
) -> Ways:
    """Compare `whole`, which uses all threads in every operator, with `alone`, which uses one.

    Batches of zeros: what is in them does not change the time. Takes a second or so at most for
    small networks, some runs for large ones.
    """
    beside = Lanes(alone, lanes)
    piece, of_piece = 0, float("inf")
    for size in _PIECES:
        batch = np.zeros((min(size * lanes, max_batch_size), *image), np.uint8)
        seconds = _seconds(partial(beside.run, piece=size), batch)
        if seconds * _SOME_GAIN > of_piece:
            break
        piece, of_piece = size, seconds
    batch = np.zeros((min(piece * lanes, max_batch_size), *image), np.uint8)
    one = batch[:1]
    if of_piece * len(batch) < _HANDED_OVER_S:
        return Ways(single_whole=False)
    if _seconds(whole, batch) < _GAIN * of_piece:
        return Ways(single_whole=True)
    return Ways(_GAIN * _seconds(whole, one) < _seconds(alone, one), piece)


def _seconds(run: Run, batch: npt.NDArray[np.uint8]) -> float:
    """An image, in the best of some rounds."""
    run(batch)
    best = float("inf")
    begun = time.perf_counter()
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        run(batch)
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended - begun > _BUDGET_S:
            break
    return best / len(batch)
