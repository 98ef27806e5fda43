"""The store of classified images by id: interface and ids; implementations: memory and Redis.

It keeps the model input for a limited time, not the maps computed from it: these are 400 times
larger, and are recomputed on request.
"""

import hmac
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol

from models.arrays import Pixels
from service.errors import ExpiredImage, ServiceError, StoreUnavailable, UnknownImage

StoreState = Literal["memory", "redis", "redis, unavailable"]

HIT = "hit"
UNREADABLE = "unreadable"
LOOKUP_OUTCOMES = (HIT, UnknownImage.code, ExpiredImage.code, UNREADABLE, StoreUnavailable.code)


class Store(Protocol):
    """Keeps inputs; used from one event loop."""

    @property
    def state(self) -> StoreState: ...
    @property
    def remote(self) -> bool:
        """Whether `put` and `get` take a round trip, for which something else can be done."""

    @property
    def secret(self) -> bytes:
        """What ids are made with: the same for all processes that share the store."""

    @property
    def lookups(self) -> Mapping[str, int]:
        """The number of `get` calls since the start, by outcome."""

    @property
    def bytes(self) -> int | None:
        """The size of all inputs kept now; None if this process does not know it."""

    async def open(self) -> None:
        """Called before any other method; never fails."""

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or renew its time to live. Never fails, but may not keep it."""

    async def get(self, image_id: str) -> Pixels:
        """The input [height, width, 3].

        Raises `UnknownImage`, `ExpiredImage` or `StoreUnavailable`.
        """

    async def close(self) -> None:
        """Called once, after all other methods."""


def new_secret() -> bytes:
    return secrets.token_bytes(32)


def content_id(pixels: Pixels, secret: bytes) -> str:
    """The id of an input, 32 hex digits: equal pixels have equal ids, on every replica.

    If it followed from the pixels alone, whoever has a picture could compute its id, ask for it,
    and learn whether somebody has had that picture classified.
    """
    digest = hmac.new(secret, "x".join(map(str, pixels.shape)).encode(), "sha256")
    digest.update(pixels.reshape(-1).data)  # other threads go on meanwhile
    return digest.hexdigest()[:32]


@contextmanager
def count_lookup(lookups: Counter[str]) -> Iterator[None]:
    """Count the outcome of the lookup in the `with` block."""
    try:
        yield
    except ServiceError as exc:
        lookups[UNREADABLE if isinstance(exc, UnreadableInput) else exc.code] += 1
        raise
    lookups[HIT] += 1


class UnreadableInput(UnknownImage):
    """What is stored is not an input; to clients the image is unknown."""


def unknown_image(image_id: str, kind: type[UnknownImage] = UnknownImage) -> UnknownImage:
    return kind(f"no image {image_id} was classified here; POST it to /classify first")


def expired_image(image_id: str, ttl_s: float) -> ExpiredImage:
    return ExpiredImage(
        f"image {image_id} is kept for at most {ttl_s:g} s, less if memory is short; "
        "classify the image again"
    )
