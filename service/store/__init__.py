"""Inputs of classified images by id, for a while; knows no home of them, of which there are two.

What is kept is the input itself, not what was computed from it: maps are 400 times larger
and computed again when somebody asks.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol

from models.arrays import Pixels
from service.errors import ExpiredImage, ServiceError, StoreUnavailable, UnknownImage

StoreState = Literal["memory", "redis", "redis, unavailable"]

HIT = "hit"
OUTCOMES = (HIT, UnknownImage.code, ExpiredImage.code, StoreUnavailable.code)  # of a lookup


class Store(Protocol):
    """Where inputs are kept; used from one event loop."""

    @property
    def state(self) -> StoreState: ...
    @property
    def lookups(self) -> Mapping[str, int]:
        """Calls of `get` since the start, by outcome."""

    @property
    def bytes(self) -> int | None:
        """Of the inputs kept now; None where that is for others to count."""

    async def open(self) -> None:
        """Before the first input; never fails."""

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or keep it longer. Never fails: what cannot be kept is not kept."""

    async def get(self, image_id: str) -> Pixels:
        """The input [S, S, 3]. Raises `UnknownImage`, `ExpiredImage` or `StoreUnavailable`."""

    async def close(self) -> None:
        """After the last one."""


def content_id(pixels: Pixels) -> str:
    """The id of an input: equal pixels have equal ids, on every replica. 32 hex digits."""
    shape = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(shape + pixels.tobytes()).hexdigest()[:32]


@contextmanager
def counted(lookups: Counter[str]) -> Iterator[None]:
    """The outcome of the lookup inside, added to the others."""
    try:
        yield
    except ServiceError as exc:
        lookups[exc.code] += 1
        raise
    lookups[HIT] += 1


def unknown(image_id: str) -> UnknownImage:
    return UnknownImage(f"no image {image_id} was classified here; POST it to /classify first")


def expired(image_id: str, ttl_s: float) -> ExpiredImage:
    return ExpiredImage(
        f"{image_id} is kept for {ttl_s:g} s at most, less when memory runs short; "
        "classify the image again"
    )
