"""The store keeps inputs for a while, within its bytes, and tells expired ids from unknown ones."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from models.preprocess import Pixels
from service.errors import ExpiredImage, UnknownImage
from service.store import MemoryStore, content_id

TTL_S = 10
ROOM = 8  # bytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pixels(count: int, level: int = 0) -> Pixels:
    return np.full((count,), level, dtype=np.uint8)


def kept(store: MemoryStore, ids: str) -> str:
    """Those of `ids`, one letter each, that the store still gives."""
    return "".join(image_id for image_id in ids if is_kept(store, image_id))


def is_kept(store: MemoryStore, image_id: str) -> bool:
    try:
        store.get(image_id)
    except ExpiredImage:
        return False
    return True


def test_an_input_is_given_back_until_its_time_is_up() -> None:
    clock = Clock()
    store = MemoryStore(ROOM, TTL_S, clock)
    store.put("a", pixels(2, level=7))
    clock.now += TTL_S - 1
    np.testing.assert_array_equal(store.get("a"), pixels(2, level=7))
    clock.now += 1
    with pytest.raises(ExpiredImage, match="a is kept for 10 s"):
        store.get("a")
    assert store.bytes == 0


def test_an_id_never_seen_is_unknown_not_expired() -> None:
    store = MemoryStore(ROOM, TTL_S, Clock())
    store.put("a", pixels(2))
    with pytest.raises(UnknownImage, match="no image b"):
        store.get("b")


def test_putting_prolongs_and_getting_does_not() -> None:
    clock = Clock()
    store = MemoryStore(ROOM, TTL_S, clock)
    for image_id in "ab":
        store.put(image_id, pixels(2))
    clock.now += TTL_S - 1
    store.put("a", pixels(2))
    store.get("b")
    clock.now += 1
    assert kept(store, "ab") == "a"


def test_the_least_recently_used_makes_room_and_has_expired() -> None:
    store = MemoryStore(ROOM, TTL_S, Clock())
    for image_id in "abcd":
        store.put(image_id, pixels(2))
    store.get("a")
    store.put("b", pixels(2))
    store.put("e", pixels(3))  # two have to go
    assert kept(store, "abcde") == "abe"


def test_an_expired_input_makes_room_before_a_living_one() -> None:
    clock = Clock()
    store = MemoryStore(ROOM, TTL_S, clock)
    store.put("a", pixels(4))
    clock.now += 5
    store.put("b", pixels(4))
    store.get("a")
    clock.now += 5  # a has expired, b has not
    store.put("c", pixels(4))
    assert kept(store, "abc") == "bc"


def test_an_evicted_id_is_known_again_when_put_again() -> None:
    store = MemoryStore(ROOM, TTL_S, Clock())
    for image_id in "aba":
        store.put(image_id, pixels(ROOM))
    assert kept(store, "ab") == "a"


class AnyHistory(RuleBasedStateMachine):
    """Puts, gets and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(ROOM, TTL_S, self.clock)
        self.newest: dict[str, tuple[Pixels, float]] = {}

    @rule(
        image_id=st.sampled_from("abcdef"), size=st.integers(1, ROOM + 2), level=st.integers(0, 255)
    )
    def put(self, image_id: str, size: int, level: int) -> None:
        self.newest[image_id] = (pixels(size, level), self.clock.now + TTL_S)
        self.store.put(image_id, pixels(size, level))
        assert is_kept(self.store, image_id) == (size <= ROOM)

    @rule(image_id=st.sampled_from("abcdef"))
    def get(self, image_id: str) -> None:
        """The newest input in its time, or the error that fits what was put."""
        try:
            found = self.store.get(image_id)
        except UnknownImage:
            assert image_id not in self.newest
        except ExpiredImage:
            assert image_id in self.newest
        else:
            expected, expiry = self.newest[image_id]
            np.testing.assert_array_equal(found, expected)
            assert self.clock.now < expiry

    @rule(seconds=st.integers(1, TTL_S))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bytes_are_counted_and_bounded(self) -> None:
        living = [image_id for image_id in self.newest if is_kept(self.store, image_id)]
        assert self.store.bytes == sum(self.newest[one][0].nbytes for one in living) <= ROOM


AnyHistory.TestCase.settings = settings(max_examples=50, deadline=None)
TestAnyHistory = AnyHistory.TestCase


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
