"""Both stores keep inputs for a while and tell expired ids from unknown ones.

The one in memory does so within its bytes too.
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
from service.store import HIT, Store, content_id
from service.store.memory import MemoryStore
from service.store.redis import RedisStore
from tests.support.redis_server import RedisServer

T = TypeVar("T")
TTL_S = 1000  # so long that none of it really passes
ROOM = 8  # bytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("it waited")


@dataclass
class Home:
    """A store as plain functions, and time that passes on demand."""

    store: Store
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    wait: Callable[[float], None]

    def put(self, image_id: str, pixels: Pixels) -> None:
        self.run(self.store.put(image_id, pixels))

    def get(self, image_id: str) -> Pixels:
        found: Pixels = self.run(self.store.get(image_id))
        return found

    def is_kept(self, image_id: str) -> bool:
        try:
            self.get(image_id)
        except ExpiredImage:
            return False
        return True

    def kept(self, ids: str) -> str:
        """Those of `ids`, one letter each, that the store still gives."""
        return "".join(image_id for image_id in ids if self.is_kept(image_id))


def in_memory(max_bytes: int = ROOM) -> Home:
    clock = Clock()
    return Home(MemoryStore(max_bytes, TTL_S, clock), at_once, clock.wait)


def in_redis(server: RedisServer, runner: asyncio.Runner) -> Home:
    def wait(seconds: float) -> None:
        """Bring every key as much nearer to its end."""
        with server.client() as client:
            for key in client.scan_iter():
                client.pexpire(key, client.pttl(key) - round(1e3 * seconds))

    return Home(RedisStore(server.url, timeout_s=10, ttl_s=TTL_S), runner.run, wait)


@pytest.fixture(params=["memory", "redis"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if request.param == "memory":
        yield in_memory()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with asyncio.Runner() as runner:
        home = in_redis(server, runner)
        home.run(home.store.open())
        yield home
        assert home.store.state == "redis"
        home.run(home.store.close())


def pixels(count: int, level: int = 0) -> Pixels:
    return np.full((count,), level, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(2,), (1, 2, 3), (2, 2, 2), (0,)])
def test_an_input_is_given_back_as_it_was(home: Home, shape: tuple[int, ...]) -> None:
    put = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for layout in (put, np.asfortranarray(put)):
        home.put("a", layout)
        found = home.get("a")
        assert (found.dtype, found.shape) == (put.dtype, put.shape)
        np.testing.assert_array_equal(found, put)


def test_an_input_is_given_back_until_its_time_is_up(home: Home) -> None:
    home.put("a", pixels(2, level=7))
    home.wait(TTL_S - 100)
    np.testing.assert_array_equal(home.get("a"), pixels(2, level=7))
    home.wait(100)
    with pytest.raises(ExpiredImage, match="a is kept for 1000 s"):
        home.get("a")


def test_an_id_never_seen_is_unknown_not_expired(home: Home) -> None:
    home.put("a", pixels(2))
    with pytest.raises(UnknownImage, match="no image b"):
        home.get("b")


def test_lookups_are_counted_by_their_outcome(home: Home) -> None:
    home.put("a", pixels(2))
    for image_id in ("a", "a", "b"):
        with suppress(UnknownImage):
            home.get(image_id)
    home.wait(TTL_S)
    assert not home.is_kept("a")
    assert home.store.lookups == {HIT: 2, UnknownImage.code: 1, ExpiredImage.code: 1}


def test_the_newest_input_of_an_id_counts(home: Home) -> None:
    home.put("a", pixels(2, level=1))
    home.put("a", pixels(3, level=2))
    np.testing.assert_array_equal(home.get("a"), pixels(3, level=2))


def test_putting_prolongs_and_getting_does_not(home: Home) -> None:
    for image_id in "ab":
        home.put(image_id, pixels(2))
    home.wait(TTL_S - 100)
    home.put("a", pixels(2))
    home.get("b")
    home.wait(100)
    assert home.kept("ab") == "a"


def test_an_expired_id_is_known_again_when_put_again(home: Home) -> None:
    home.put("a", pixels(2))
    home.wait(TTL_S)
    assert home.kept("a") == ""
    home.put("a", pixels(2))
    assert home.kept("a") == "a"


def test_memory_is_free_again_when_time_is_up() -> None:
    home = in_memory()
    assert isinstance(home.store, MemoryStore)
    home.put("a", pixels(2))
    home.wait(TTL_S)
    assert not home.is_kept("a")
    assert home.store.bytes == 0


def test_the_least_recently_used_makes_room_and_has_expired() -> None:
    home = in_memory()
    for image_id in "abcd":
        home.put(image_id, pixels(2))
    home.get("a")
    home.put("b", pixels(2))
    home.put("e", pixels(3))  # two have to go
    assert home.kept("abcde") == "abe"


def test_an_expired_input_makes_room_before_a_living_one() -> None:
    home = in_memory()
    home.put("a", pixels(4))
    home.wait(TTL_S / 2)
    home.put("b", pixels(4))
    home.get("a")
    home.wait(TTL_S / 2)  # a has expired, b has not
    home.put("c", pixels(4))
    assert home.kept("abc") == "bc"


def test_an_evicted_id_is_known_again_when_put_again() -> None:
    home = in_memory()
    for image_id in "aba":
        home.put(image_id, pixels(ROOM))
    assert home.kept("ab") == "a"


class AnyHistory(RuleBasedStateMachine):
    """Puts, gets and time in any order."""

    def __init__(self, home: Home, room: float) -> None:
        super().__init__()
        self.home = home
        self.room = room  # an input with more bytes is not kept
        self.now = 0
        self.newest: dict[str, tuple[Pixels, int]] = {}  # with its last moment

    @rule(
        image_id=st.sampled_from("abcdef"), size=st.integers(1, ROOM + 2), level=st.integers(0, 255)
    )
    def put(self, image_id: str, size: int, level: int) -> None:
        self.newest[image_id] = (pixels(size, level), self.now + TTL_S)
        self.home.put(image_id, pixels(size, level))
        assert self.home.is_kept(image_id) == (size <= self.room)

    @rule(image_id=st.sampled_from("abcdef"))
    def get(self, image_id: str) -> None:
        """The newest input in its time, or the error that fits what was put."""
        try:
            found = self.home.get(image_id)
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
        self.home.wait(tenths * TTL_S // 10)


class AnyHistoryInMemory(AnyHistory):
    def __init__(self) -> None:
        super().__init__(in_memory(), ROOM)

    @invariant()
    def bytes_are_counted_and_bounded(self) -> None:
        assert isinstance(self.home.store, MemoryStore)
        living = [image_id for image_id in self.newest if self.home.is_kept(image_id)]
        assert self.home.store.bytes == sum(self.newest[one][0].nbytes for one in living) <= ROOM


def test_any_history_in_memory() -> None:
    run_state_machine_as_test(AnyHistoryInMemory, settings=settings(max_examples=50, deadline=None))


def test_any_history_in_redis(redis_server: RedisServer) -> None:
    with asyncio.Runner() as runner:
        home = in_redis(redis_server, runner)

        class AnyHistoryInRedis(AnyHistory):
            def __init__(self) -> None:
                with redis_server.client() as client:
                    client.flushall()
                super().__init__(home, np.inf)

            @invariant()
            def only_time_takes_away(self) -> None:
                for image_id, (_, expiry) in self.newest.items():
                    assert self.now >= expiry or self.home.is_kept(image_id)

        run_state_machine_as_test(
            AnyHistoryInRedis,
            settings=settings(max_examples=10, stateful_step_count=20, deadline=None),
        )
        runner.run(home.store.close())


def image(height: int, width: int, level: int = 0) -> Pixels:
    return np.full((height, width, 3), level, dtype=np.uint8)


def test_equal_pixels_have_equal_ids_however_they_lie_in_memory() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert content_id(np.asfortranarray(noise)) == content_id(noise.copy()) == content_id(noise)


@pytest.mark.parametrize("other", [image(2, 6), image(6, 2), image(4, 3, level=1)])
def test_other_shapes_and_other_pixels_have_other_ids(other: Pixels) -> None:
    assert content_id(other) != content_id(image(4, 3))


def test_ids_are_the_same_on_every_replica() -> None:
    assert content_id(image(1, 1)) == "85e3450946b56778bc70b4e1865f92af"
