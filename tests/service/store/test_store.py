"""Both stores keep inputs for their time to live and tell expired ids from unknown ones.

The one in memory also keeps within its limit in bytes.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from models.arrays import Pixels
from service.errors import ExpiredImage, UnknownImage
from service.store import HIT, Store, content_id, new_secret
from service.store.memory import MemoryStore
from service.store.redis import RedisStore
from tests.support.redis_server import RedisServer

T = TypeVar("T")
TTL_S = 1000  # far longer than any test runs
MAX_PIXELS = 8
MAX_BYTES = 3 * MAX_PIXELS
SECRET = bytes(range(32))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def without_waiting(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that must not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("the coroutine waited")


@dataclass
class SyncStore:
    """A store with synchronous methods, and time that passes on demand."""

    wrapped: Store
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    wait: Callable[[float], None]

    def put(self, image_id: str, pixels: Pixels) -> None:
        self.run(self.wrapped.put(image_id, pixels))

    def get(self, image_id: str) -> Pixels:
        found: Pixels = self.run(self.wrapped.get(image_id))
        return found

    def is_kept(self, image_id: str) -> bool:
        try:
            self.get(image_id)
        except ExpiredImage:
            return False
        return True

    def kept(self, ids: str) -> str:
        """Those of `ids`, one letter each, that are still in the store."""
        return "".join(image_id for image_id in ids if self.is_kept(image_id))


def in_memory(max_bytes: int = MAX_BYTES) -> SyncStore:
    clock = Clock()
    return SyncStore(MemoryStore(max_bytes, TTL_S, clock), without_waiting, clock.wait)


def in_redis(server: RedisServer, runner: asyncio.Runner) -> SyncStore:
    def wait(seconds: float) -> None:
        """Shorten the time to live of every key."""
        with server.client() as client:
            for key in client.scan_iter():
                client.pexpire(key, client.pttl(key) - round(1e3 * seconds))

    return SyncStore(RedisStore(server.url, timeout_s=10, ttl_s=TTL_S), runner.run, wait)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[SyncStore]:
    if request.param == "memory":
        yield in_memory()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with asyncio.Runner() as runner:
        store = in_redis(server, runner)
        store.run(store.wrapped.open())
        yield store
        assert store.wrapped.state == "redis"
        store.run(store.wrapped.close())


def pixels(count: int, level: int = 0) -> Pixels:
    return np.full((1, count, 3), level, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 1, 3), (2, 3, 3)])
def test_an_input_comes_back_unchanged(store: SyncStore, shape: tuple[int, ...]) -> None:
    put = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for layout in (put, np.asfortranarray(put)):
        store.put("a", layout)
        found = store.get("a")
        assert (found.dtype, found.shape) == (put.dtype, put.shape)
        np.testing.assert_array_equal(found, put)


def test_an_input_is_kept_for_its_time_to_live(store: SyncStore) -> None:
    store.put("a", pixels(2, level=7))
    store.wait(TTL_S - 100)
    np.testing.assert_array_equal(store.get("a"), pixels(2, level=7))
    store.wait(100)
    with pytest.raises(ExpiredImage, match="image a is kept for at most 1000 s"):
        store.get("a")


def test_an_id_never_seen_is_unknown_not_expired(store: SyncStore) -> None:
    store.put("a", pixels(2))
    with pytest.raises(UnknownImage, match="no image b"):
        store.get("b")


def test_lookups_are_counted_by_their_outcome(store: SyncStore) -> None:
    store.put("a", pixels(2))
    for image_id in ("a", "a", "b"):
        with suppress(UnknownImage):
            store.get(image_id)
    store.wait(TTL_S)
    assert not store.is_kept("a")
    assert store.wrapped.lookups == {HIT: 2, UnknownImage.code: 1, ExpiredImage.code: 1}


def test_a_second_input_with_an_id_replaces_the_first(store: SyncStore) -> None:
    store.put("a", pixels(2, level=1))
    store.put("a", pixels(3, level=2))
    np.testing.assert_array_equal(store.get("a"), pixels(3, level=2))


def test_put_renews_the_time_to_live_and_get_does_not(store: SyncStore) -> None:
    for image_id in "ab":
        store.put(image_id, pixels(2))
    store.wait(TTL_S - 100)
    store.put("a", pixels(2))
    store.get("b")
    store.wait(100)
    assert store.kept("ab") == "a"


def test_an_expired_id_is_known_again_when_put_again(store: SyncStore) -> None:
    store.put("a", pixels(2))
    store.wait(TTL_S)
    assert store.kept("a") == ""
    store.put("a", pixels(2))
    assert store.kept("a") == "a"


def test_memory_is_freed_on_expiry() -> None:
    store = in_memory()
    assert isinstance(store.wrapped, MemoryStore)
    store.put("a", pixels(2))
    store.wait(TTL_S)
    assert not store.is_kept("a")
    assert store.wrapped.bytes == 0


def test_the_least_recently_used_input_is_evicted() -> None:
    store = in_memory()
    for image_id in "abcd":
        store.put(image_id, pixels(2))
    store.get("a")
    store.put("b", pixels(2))
    store.put("e", pixels(3))  # two have to go
    assert store.kept("abcde") == "abe"


def test_an_expired_input_is_evicted_before_any_other() -> None:
    store = in_memory()
    store.put("a", pixels(4))
    store.wait(TTL_S / 2)
    store.put("b", pixels(4))
    store.get("a")
    store.wait(TTL_S / 2)  # a has expired, b has not
    store.put("c", pixels(4))
    assert store.kept("abc") == "bc"


def test_an_evicted_id_is_known_again_when_put_again() -> None:
    store = in_memory()
    for image_id in "aba":
        store.put(image_id, pixels(MAX_PIXELS))
    assert store.kept("ab") == "a"


class AnyHistory(RuleBasedStateMachine):
    """Puts, gets and waits in any order."""

    def __init__(self, store: SyncStore, max_pixels: float) -> None:
        super().__init__()
        self.store = store
        self.max_pixels = max_pixels  # a larger input is not kept
        self.now = 0
        self.newest: dict[str, tuple[Pixels, int]] = {}  # with its expiry

    @rule(
        image_id=st.sampled_from("abcdef"),
        size=st.integers(1, MAX_PIXELS + 2),
        level=st.integers(0, 255),
    )
    def put(self, image_id: str, size: int, level: int) -> None:
        self.newest[image_id] = (pixels(size, level), self.now + TTL_S)
        self.store.put(image_id, pixels(size, level))
        assert self.store.is_kept(image_id) == (size <= self.max_pixels)

    @rule(image_id=st.sampled_from("abcdef"))
    def get(self, image_id: str) -> None:
        """The newest input before it expires, else the right error."""
        try:
            found = self.store.get(image_id)
        except UnknownImage:
            assert image_id not in self.newest
        except ExpiredImage:
            assert image_id in self.newest
        else:
            expected, expiry = self.newest[image_id]
            np.testing.assert_array_equal(found, expected)
            assert self.now < expiry

    @rule(tenths=st.integers(1, 10))
    def wait(self, tenths: int) -> None:
        self.now += tenths * TTL_S // 10
        self.store.wait(tenths * TTL_S // 10)


class AnyHistoryInMemory(AnyHistory):
    def __init__(self) -> None:
        super().__init__(in_memory(), MAX_PIXELS)

    @invariant()
    def bytes_are_counted_and_bounded(self) -> None:
        assert isinstance(self.store.wrapped, MemoryStore)
        kept = [image_id for image_id in self.newest if self.store.is_kept(image_id)]
        assert (
            self.store.wrapped.bytes
            == sum(self.newest[image_id][0].nbytes for image_id in kept)
            <= MAX_BYTES
        )


def test_any_history_in_memory() -> None:
    run_state_machine_as_test(AnyHistoryInMemory, settings=settings(max_examples=50, deadline=None))


def test_any_history_in_redis(redis_server: RedisServer) -> None:
    with asyncio.Runner() as runner:
        store = in_redis(redis_server, runner)

        class AnyHistoryInRedis(AnyHistory):
            def __init__(self) -> None:
                with redis_server.client() as client:
                    client.flushall()
                super().__init__(store, np.inf)

            @invariant()
            def inputs_are_kept_until_they_expire(self) -> None:
                for image_id, (_, expiry) in self.newest.items():
                    assert self.now >= expiry or self.store.is_kept(image_id)

        run_state_machine_as_test(
            AnyHistoryInRedis,
            settings=settings(max_examples=10, stateful_step_count=20, deadline=None),
        )
        runner.run(store.wrapped.close())


def image(height: int, width: int, level: int = 0) -> Pixels:
    return np.full((height, width, 3), level, dtype=np.uint8)


def test_equal_pixels_have_equal_ids_whatever_their_memory_layout() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    layouts = (noise, noise.copy(), np.asfortranarray(noise))
    assert len({content_id(pixels, SECRET) for pixels in layouts}) == 1


@pytest.mark.parametrize("other", [image(2, 6), image(6, 2), image(4, 3, level=1)])
def test_other_shapes_and_other_pixels_have_other_ids(other: Pixels) -> None:
    assert content_id(other, SECRET) != content_id(image(4, 3), SECRET)


def test_ids_follow_from_the_secret_and_nothing_else_of_the_process() -> None:
    assert content_id(image(1, 1), SECRET) == "96dc00c94782db8074d892f34bab320e"
    assert content_id(image(1, 1), new_secret()) != content_id(image(1, 1), new_secret())
