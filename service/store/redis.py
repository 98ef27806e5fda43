"""The store that replicas share: a Redis, which may be slow or unavailable at any time.

Time is limited here (TTL); bytes are limited by Redis itself, with `maxmemory` and a
`maxmemory-policy` that evicts.

    deepvit:input:ID  the input; expires after the TTL
    deepvit:seen:ID   empty; expires after ten TTLs, to tell expired images from unknown ones
    deepvit:alive     empty; every replica writes it every second to see whether Redis works
    deepvit:secret    what ids are made with; of the first replica, which all others take over
"""

import asyncio
import logging
import math
import re
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.arrays import Pixels
from service.errors import StartupError, StoreUnavailable
from service.store import (
    StoreState,
    UnreadableInput,
    count_lookup,
    expired_image,
    new_secret,
    unknown_image,
)

_logger = logging.getLogger(__name__)

_INPUT = "deepvit:input:"
_SEEN = "deepvit:seen:"
_ALIVE = "deepvit:alive"
_SECRET = "deepvit:secret"
_SEEN_TTLS = 10
_MAX_TTL_MS = 10**12  # 30 years; Redis refuses times that overflow
_HEARTBEAT_S = 1
_MAX_CONNECTIONS = 16
_MAX_VALUE_BYTES = 64 * 2**20  # of an input of 4,700 px; other programs may write larger values
_WARN_S = 60

_MAGIC = b"deepvit\x01"  # starts every value; the last byte is the version of the format
_SHAPE = struct.Struct("<BIII")  # the number of axes, and their lengths


class RedisStore:
    """Keeps inputs in one Redis database; every method returns within `timeout_s`.

    A failure starts an outage: until a heartbeat succeeds again, `put` does nothing. So an outage
    delays only the classifications that are running when it starts.
    """

    bytes = None  # only Redis knows
    remote = True

    def __init__(self, url: str, *, timeout_s: float, ttl_s: float) -> None:
        """Does not connect yet. Raises `StartupError` for a wrong URL."""
        pool = _pool(url, timeout_s)
        self._redis = Redis.from_pool(pool)
        self._address = f"{urlsplit(url).hostname}:{pool.connection_kwargs.get('port', 6379)}"
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._unavailable = False
        self._warned = -math.inf
        self.lookups: Counter[str] = Counter()
        self.secret = new_secret()  # until there is one in Redis
        self._heartbeat: asyncio.Task[None] | None = None

    @property
    def state(self) -> StoreState:
        """At most about a second old."""
        return "redis, unavailable" if self._unavailable else "redis"

    async def open(self) -> None:
        """Send the first heartbeat, which logs a warning if Redis is unavailable, then go on."""
        await self._check()
        self._heartbeat = asyncio.create_task(self._check_repeatedly())

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or renew its time to live; does nothing in an outage."""
        if self._unavailable:
            return
        with suppress(StoreUnavailable):  # already logged
            async with self._exchange(), self._redis.pipeline(transaction=False) as commands:
                commands.set(_INPUT + image_id, pack(pixels), px=_milliseconds(self._ttl_s))
                commands.set(_SEEN + image_id, b"", px=_milliseconds(_SEEN_TTLS * self._ttl_s))
                await commands.execute()

    async def get(self, image_id: str) -> Pixels:
        """The input [height, width, 3], read-only. Raises `UnknownImage`, `ExpiredImage` or
        `StoreUnavailable`.

        Tries in an outage too: a full Redis refuses writes but still answers reads.
        """
        with count_lookup(self.lookups):
            async with self._exchange(), self._redis.pipeline(transaction=False) as commands:
                commands.getrange(_INPUT + image_id, 0, _MAX_VALUE_BYTES)
                commands.exists(_SEEN + image_id)
                value, seen = await commands.execute(raise_on_error=False)
                _raise_unless_of_wrong_type(value, seen)
            if value == b"":
                raise expired_image(image_id, self._ttl_s) if seen else unknown_image(image_id)
            pixels = unpack(value) if isinstance(value, bytes) else None
            if pixels is None:
                self._warn_of_unreadable(image_id)
                raise unknown_image(image_id, UnreadableInput)
            return pixels

    def _warn_of_unreadable(self, image_id: str) -> None:
        """Once a minute: there may be many, and other programs may go on writing them."""
        now = time.monotonic()
        if now - self._warned >= _WARN_S:
            self._warned = now
            key = _INPUT + image_id
            _logger.warning("store: no input of ours in Redis at %s: %s", self._address, key)

    async def close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.wait([self._heartbeat])
        with suppress(StoreUnavailable):
            async with self._exchange():
                await self._redis.aclose()

    async def _check_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            await self._check()

    async def _check(self) -> None:
        """Find out whether Redis accepts writes; one that is full would still answer a PING.

        A secret that Redis has lost, with or without its inputs, is put there again by the replicas
        that still have it.
        """
        with suppress(StoreUnavailable):
            async with self._exchange(), self._redis.pipeline(transaction=False) as commands:
                commands.set(_ALIVE, b"", ex=60)
                commands.set(_SECRET, self.secret, nx=True)
                commands.get(_SECRET)
                self.secret = (await commands.execute())[-1] or self.secret
            if self._unavailable:
                self._unavailable = False
                _logger.info("store: Redis at %s is available again", self._address)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        """Limit the time of the `with` block. Raises `StoreUnavailable` if anything in it fails."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except Exception as exc:
            if not self._unavailable:
                self._unavailable = True
                _logger.warning(
                    "store: no Redis at %s: %s; classification continues without storing images",
                    self._address,
                    str(exc) or f"no answer within {self._timeout_s:g} s",
                )
            raise StoreUnavailable(
                "the store of classified images is unavailable; classification still works",
                retry_after_s=_HEARTBEAT_S,
            ) from exc


def pack(pixels: Pixels) -> bytes:
    """The magic bytes, the number of axes, their lengths, then the pixels [height, width, 3]."""
    return b"".join((_MAGIC, _SHAPE.pack(3, *pixels.shape), np.ascontiguousarray(pixels).data))


def unpack(value: bytes) -> Pixels | None:
    """The pixels [height, width, 3] that `pack` was given, or None for any other value."""
    size = len(_MAGIC) + _SHAPE.size
    if not value.startswith(_MAGIC) or len(value) < size:
        return None
    axes, height, width, channels = _SHAPE.unpack_from(value, len(_MAGIC))
    if (axes, channels) != (3, 3) or not 0 < height * width * channels == len(value) - size:
        return None
    return np.frombuffer(value, np.uint8, offset=size).reshape(height, width, channels)


def _raise_unless_of_wrong_type(*replies: object) -> None:
    """Redis's errors but for those about a value that is a list, a hash and so on."""
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
            raise reply


def _milliseconds(seconds: float) -> int:
    return round(max(1, min(1e3 * seconds, _MAX_TTL_MS)))


def _pool(url: str, timeout_s: float) -> BlockingConnectionPool:
    """Raises `StartupError`, which does not quote the URL, as that may contain a password."""
    try:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("redis", "rediss")
            or not parts.hostname
            or not re.fullmatch(r"/?|/\d+", parts.path)
        ):
            raise ValueError
        # Options from the URL, except for those that this file relies on.
        options: dict[str, Any] = {
            **parse_url(url),
            "max_connections": _MAX_CONNECTIONS,
            "timeout": timeout_s,  # of waiting for a free connection
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 1),  # Redis may have closed an idle connection
            "decode_responses": False,
            "protocol": 2,  # every version of Redis speaks it
        }
        pool = BlockingConnectionPool(**options)
        pool.connection_class(
            **pool.connection_kwargs
        )  # fails on unknown options; does not connect
    except (TypeError, ValueError, RedisError):
        raise StartupError(
            "wrong setting: store_url: not redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], "
            "or rediss:// for TLS, with options that redis-py knows"
        ) from None
    return pool
