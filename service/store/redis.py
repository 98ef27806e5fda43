"""The store that replicas share: inputs in a Redis, which may be away or slow at any time.

Knows nothing of what is done without it. Time is bounded here (TTL), bytes are not: that is for
Redis' own `maxmemory`, with a `maxmemory-policy` that evicts.

    deepvit:input:ID  the input, for the TTL
    deepvit:seen:ID   that there was one, ten times as long, so that expired is not unknown
    deepvit:alive     written by every replica every second
"""

import asyncio
import logging
import re
import struct
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
from service.store import StoreState, counted, expired, unknown

_logger = logging.getLogger(__name__)

_INPUT = "deepvit:input:"
_SEEN = "deepvit:seen:"
_ALIVE = "deepvit:alive"
_REMEMBERED = 10  # TTLs that an id is told apart from never seen ones
_LONGEST_MS = 10**12  # 30 years; Redis refuses times that overflow
_HEARTBEAT_S = 1
_MAX_CONNECTIONS = 16

_MARK = b"deepvit\x01"  # of this format of values, its version last


class RedisStore:
    """Inputs in one Redis database. Whatever is asked of it is answered within `timeout_s`.

    A failure starts an outage: nothing is put until a heartbeat has reached Redis again, so an
    outage delays the classifications under way at its start, and none after them.
    """

    bytes = None  # Redis knows

    def __init__(self, url: str, *, timeout_s: float, ttl_s: float) -> None:
        """Connects to nothing yet. Raises `StartupError` for a wrong URL."""
        pool = _pool(url, timeout_s)
        self._redis = Redis.from_pool(pool)
        self._address = f"{urlsplit(url).hostname}:{pool.connection_kwargs.get('port', 6379)}"
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._away = False
        self.lookups: Counter[str] = Counter()
        self._watching: asyncio.Task[None] | None = None

    @property
    def state(self) -> StoreState:
        """As of the last second."""
        return "redis, unavailable" if self._away else "redis"

    async def open(self) -> None:
        """Say in the log if Redis is away, and watch it from now on."""
        await self._beat()
        self._watching = asyncio.create_task(self._watch())

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or keep it longer; in an outage do nothing."""
        if self._away:
            return
        with suppress(StoreUnavailable):  # it is in the log
            async with self._exchange(), self._redis.pipeline(transaction=False) as commands:
                commands.set(_INPUT + image_id, pack(pixels), px=_milliseconds(self._ttl_s))
                commands.set(_SEEN + image_id, b"", px=_milliseconds(_REMEMBERED * self._ttl_s))
                await commands.execute()

    async def get(self, image_id: str) -> Pixels:
        """The input [S, S, 3], read-only. Raises `UnknownImage`, `ExpiredImage` or
        `StoreUnavailable`.

        Asks in an outage too: a Redis that takes nothing more may still give.
        """
        with counted(self.lookups):
            async with self._exchange():
                value, seen = await self._redis.mget(_INPUT + image_id, _SEEN + image_id)
            if value is None and seen is not None:
                raise expired(image_id, self._ttl_s)
            pixels = unpack(value) if isinstance(value, bytes) else None
            if pixels is None:
                raise unknown(image_id)
            return pixels

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        with suppress(StoreUnavailable):
            async with self._exchange():
                await self._redis.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            await self._beat()

    async def _beat(self) -> None:
        """Find out whether inputs can be kept. A write, as a full Redis answers PING too."""
        with suppress(StoreUnavailable):
            async with self._exchange():
                await self._redis.set(_ALIVE, b"", ex=60)
            if self._away:
                self._away = False
                _logger.info("store: Redis at %s is back", self._address)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        """Bounds the time of what is inside. Raises `StoreUnavailable` for whatever fails there."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except Exception as exc:
            if not self._away:
                self._away = True
                _logger.warning(
                    "store: no Redis at %s: %s; classification goes on without keeping inputs",
                    self._address,
                    str(exc) or f"no answer within {self._timeout_s:g} s",
                )
            raise StoreUnavailable(
                "the store of classified images is away; classifying still works",
                retry_after_s=_HEARTBEAT_S,
            ) from exc


def pack(pixels: Pixels) -> bytes:
    """Mark, number of axes, their lengths, bytes."""
    shape = pixels.shape
    return _MARK + struct.pack(f"<B{len(shape)}I", len(shape), *shape) + pixels.tobytes()


def unpack(value: bytes) -> Pixels | None:
    """What `pack` was given, or None if that is not where the value comes from."""
    start = len(_MARK)
    if not value.startswith(_MARK) or len(value) == start:
        return None
    lengths = struct.Struct(f"<{value[start]}I")
    start += 1
    if len(value) < start + lengths.size:
        return None
    shape = lengths.unpack_from(value, start)
    try:
        return np.frombuffer(value, np.uint8, offset=start + lengths.size).reshape(shape)
    except ValueError:  # another number of bytes, or a shape that no array has
        return None


def _milliseconds(seconds: float) -> int:
    return round(max(1, min(1e3 * seconds, _LONGEST_MS)))


def _pool(url: str, timeout_s: float) -> BlockingConnectionPool:
    """Raises `StartupError`, which does not repeat the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("redis", "rediss")
            or not parts.hostname
            or not re.fullmatch(r"/?|/\d+", parts.path)
        ):
            raise ValueError
        # What the URL says, but for what this file relies on.
        options: dict[str, Any] = {
            **parse_url(url),
            "max_connections": _MAX_CONNECTIONS,
            "timeout": timeout_s,  # for a free connection
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 1),  # Redis may have closed an idle connection
            "decode_responses": False,
            "protocol": 2,  # which every Redis speaks
        }
        pool = BlockingConnectionPool(**options)
        pool.connection_class(**pool.connection_kwargs)  # finds unknown options; connects nowhere
    except (TypeError, ValueError, RedisError):
        raise StartupError(
            "wrong setting: store_url: not redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], "
            "or rediss:// for TLS, with options that redis-py knows"
        ) from None
    return pool
