"""The store in Redis by itself: its address, its outages, and what its values look like."""

import asyncio
import logging
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.arrays import Pixels
from service.errors import StartupError, StoreUnavailable
from service.store.redis import RedisStore, pack, unpack
from tests.service.store.test_store import without_waiting
from tests.support.redis_server import RedisServer, running_redis

REDIS_UNAVAILABLE = "redis, unavailable"


def store(url: str) -> RedisStore:
    return RedisStore(url, timeout_s=0.1, ttl_s=1000)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://:secret@cache",
        "unix:///tmp/redis.sock?password=secret",
        "redis://",
        "redis://:6379",
        "redis://:secret@cache:port",
        "redis://:se/cret@cache",
        "redis://:secret@cache:65536",
        "redis://:secret@cache/inputs",
        "redis://:secret@cache/0/1",
        "redis://:secret@cache?db=secret",
        "redis://:secret@cache?no_such_option=1",
        "rediss://:secret@cache?ssl_cert_reqs=secret",
        "redis://:secret@[::1",
    ],
)
def test_a_wrong_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(StartupError, match=r"store_url: not redis://") as refused:
        store(url)
    assert "secret" not in refused.value.detail
    assert "cret@" not in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/",
        "redis://user:pass%2Fword@cache/3",
        "redis://[::1]:6379",
        "rediss://cache?ssl_cert_reqs=none",
        "redis://cache?socket_timeout=100&decode_responses=yes&max_connections=1000",
    ],
)
def test_a_valid_url_is_accepted(url: str) -> None:
    assert store(url).state == "redis"


def test_a_wrong_password_is_an_outage_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def found(url: str) -> str:
        opened = store(url)
        await opened.open()
        await opened.close()
        return opened.state

    with running_redis("--requirepass", "right") as redis, caplog.at_level(logging.WARNING):
        address = redis.url.removeprefix("redis://")
        assert asyncio.run(found(f"redis://:right@{address}/3")) == "redis"
        assert caplog.text == ""
        assert asyncio.run(found(f"redis://:secret@{address}")) == REDIS_UNAVAILABLE
        assert asyncio.run(found(f"redis://{address}")) == REDIS_UNAVAILABLE
    assert f"no Redis at {address}" in caplog.text
    assert "secret" not in caplog.text


def test_put_does_not_wait_in_an_outage(redis_server: RedisServer) -> None:
    async def outage() -> None:
        hanging = store(redis_server.url)
        redis_server.freeze()
        await hanging.put("a", np.zeros((1, 1, 3), np.uint8))
        assert hanging.state == REDIS_UNAVAILABLE
        without_waiting(hanging.put("a", np.zeros((1, 1, 3), np.uint8)))
        with pytest.raises(StoreUnavailable):
            await hanging.get("a")
        await hanging.close()

    asyncio.run(outage())


def test_more_puts_than_connections_are_all_kept(redis_server: RedisServer) -> None:
    async def crowd() -> None:
        shared = RedisStore(redis_server.url, timeout_s=10, ttl_s=1000)
        inputs = [np.full((224, 224, 3), level, np.uint8) for level in range(100)]
        await asyncio.gather(*(shared.put(str(i), one) for i, one in enumerate(inputs)))
        found = await asyncio.gather(*(shared.get(str(i)) for i in range(100)))
        assert all(map(np.array_equal, found, inputs))
        with redis_server.client() as client:
            assert len(client.client_list()) <= 17  # including this one
        await shared.close()

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("ttl_s", "milliseconds"), [(1e-9, 1), (1.5, 1500), (float("inf"), 10**12)]
)
def test_redis_accepts_any_time_to_live(
    redis_server: RedisServer, ttl_s: float, milliseconds: int
) -> None:
    async def put() -> None:
        shared = RedisStore(redis_server.url, timeout_s=10, ttl_s=ttl_s)
        await shared.put("a", np.zeros((1, 1, 3), np.uint8))
        assert shared.state == "redis"
        await shared.close()

    asyncio.run(put())
    with redis_server.client() as client:
        assert client.pttl("deepvit:input:a") <= milliseconds


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))
INPUTS: Any = arrays.arrays(np.uint8, SIZES)
PACKED = pack(np.zeros((2, 1, 3), np.uint8))


def shaped(*lengths: int, content: bytes) -> bytes:
    return PACKED[:8] + struct.pack(f"<B{len(lengths)}I", len(lengths), *lengths) + content


UNREADABLE = {
    "nothing but the magic bytes": PACKED[:8],
    "no lengths": PACKED[:9],
    "a byte too few": PACKED[:-1],
    "a byte too many": PACKED + b"\0",
    "other magic bytes": b"D" + PACKED[1:],
    "a later version of the format": PACKED[:7] + b"\x02" + PACKED[8:],
    "255 axes": PACKED[:8] + b"\xff" + PACKED[9:],
    "no axes": shaped(content=b"\0"),
    "two axes": shaped(2, 3, content=bytes(6)),
    "four axes": shaped(1, 2, 1, 3, content=bytes(6)),
    "one channel": shaped(2, 3, 1, content=bytes(6)),
    "no pixels": shaped(0, 0, 3, content=b""),
    "float32": shaped(2, 1, 3, content=bytes(24)),
    "lengths that overflow": shaped(2**32 - 1, 2**32 - 1, 3, content=bytes(6)),
    "lengths beside a zero": shaped(0, 2**32 - 1, 3, content=bytes(6)),
    "a pickle": pickle.dumps(np.zeros((2, 3), np.uint8)),
}


@given(INPUTS)
def test_unpack_inverts_pack(pixels: Pixels) -> None:
    found = unpack(pack(pixels))
    assert found is not None
    assert found.shape == pixels.shape
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_unpack_refuses_other_values(value: bytes) -> None:
    assert unpack(value) is None


@given(st.binary(), st.integers(0, len(PACKED)))
def test_any_bytes_are_unpacked_or_refused(tail: bytes, kept: int) -> None:
    found = unpack(PACKED[:kept] + tail)
    assert found is None or pack(found) == PACKED[:kept] + tail
