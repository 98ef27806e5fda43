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
_GAIN = 1.1  # what lanes must win to be worth their session's memory
_HANDED_OVER_S = 0.0005  # a batch that takes no longer is not worth waking threads for
_ROUNDS = 3
_BUDGET_S = 0.5  # for each way; a slow network is measured once


class Ways(NamedTuple):
    """How single images and batches are run fastest."""

    single_whole: bool  # on all threads, and batches too if there is but one lane
    lanes: int  # pieces of a batch beside each other, of one thread each if more than one
    piece: int  # images in each


class Lanes:
    """Runs pieces of a batch, on as many threads at once as there are lanes."""

    def __init__(self, run: Run, lanes: int) -> None:
        self._run = run
        self._lanes = lanes
        self._others = ThreadPoolExecutor(max(1, lanes - 1), "lane")  # the caller is a lane too

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
    images = np.zeros((max_batch_size, *image), np.uint8)
    in_lanes, piece = _piece(alone, lanes, images)
    if in_lanes * min(piece * lanes, max_batch_size) < _HANDED_OVER_S:
        return Ways(single_whole=False, lanes=1, piece=max_batch_size)
    on_its_own, piece_whole = _piece(whole, 1, images)
    if on_its_own < _GAIN * in_lanes:
        return Ways(single_whole=True, lanes=1, piece=piece_whole)
    single_whole = _GAIN * _seconds(whole, images[:1]) < _seconds(alone, images[:1])
    return Ways(single_whole, lanes, piece)


def _piece(run: Run, lanes: int, images: npt.NDArray[np.uint8]) -> tuple[float, int]:
    """Seconds an image in pieces of the best size, and that size."""
    best, piece, beside = float("inf"), 0, Lanes(run, lanes)
    for size in _PIECES:
        batch = images[: size * lanes]
        seconds = _seconds(partial(beside.run, piece=size), batch)
        if seconds * _SOME_GAIN > best:
            break
        best, piece = seconds, size
        if len(batch) == len(images):
            break
    return best, piece


def _seconds(run: Run, batch: npt.NDArray[np.uint8]) -> float:
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
