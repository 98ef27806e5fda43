"""Uploads in flight: who is refused and who gives way, with a clock of the test's own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.errors import UploadsFull
from service.limits.fairness import GRACE_S, SLOW_BYTES_PER_S, client_at
from service.limits.inflight import InflightUploads

LONG_S = 10 * GRACE_S


class Clock:
    """Time that stands still unless it is told to pass."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Sender:
    """An upload in a task of its own, which is told what arrives."""

    def __init__(self, uploads: InflightUploads, address: str, declared: int = 0) -> None:
        self._steps: asyncio.Queue[Callable[[Any], None] | None] = asyncio.Queue()
        self.ended = asyncio.ensure_future(self._send(uploads, address, declared))

    async def _send(self, uploads: InflightUploads, address: str, declared: int) -> str:
        try:
            with uploads.begin(address, declared) as upload:
                while step := await self._steps.get():
                    step(upload)
        except UploadsFull as exc:
            return "refused" if "on their way" in exc.detail else "gave way"
        return "ended"

    async def grow(self, size: int) -> None:
        await self._do(lambda upload: upload.grow(size))

    async def complete(self) -> None:
        await self._do(lambda upload: upload.complete())

    async def keep(self, size: int) -> None:
        await self._do(lambda upload: upload.keep(size))

    async def end(self) -> str:
        await self._do(None)
        return await self.ended

    async def _do(self, step: Callable[[Any], None] | None) -> None:
        self._steps.put_nowait(step)
        await settle()


async def settle() -> None:
    """Let every task do what it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(
    scenario: Callable[[InflightUploads, Clock], Awaitable[None]], max_bytes: int, max_uploads: int
) -> None:
    clock = Clock()
    uploads = InflightUploads(max_bytes, max_uploads, clock)

    async def whole() -> None:
        async with asyncio.timeout(30):
            await scenario(uploads, clock)
        assert uploads.bytes == uploads.arriving == 0

    asyncio.run(whole())


def test_an_upload_counts_until_nothing_of_it_is_kept() -> None:
    async def scenario(uploads: InflightUploads, _: Clock) -> None:
        one = Sender(uploads, "a")
        await one.grow(60)
        assert (uploads.bytes, uploads.arriving) == (60, 1)
        await one.complete()
        assert (uploads.bytes, uploads.arriving) == (60, 0)
        await one.keep(10)
        assert uploads.bytes == 10
        assert await one.end() == "ended"

    run(scenario, max_bytes=100, max_uploads=1)


def test_what_cannot_fit_is_refused_before_it_is_read() -> None:
    async def scenario(uploads: InflightUploads, _: Clock) -> None:
        one = Sender(uploads, "a")
        await one.grow(60)
        assert await Sender(uploads, "a", declared=41).ended == "refused"
        other = Sender(uploads, "a", declared=40)
        await other.grow(40)
        await other.grow(1)
        assert await other.ended == "refused"  # more than it had declared
        assert await one.end() == "ended"

    run(scenario, max_bytes=100, max_uploads=9)


def test_a_client_that_holds_everything_gives_way_to_another() -> None:
    """At once, and as much as the other needs to hold as much as itself; what is slowest goes."""

    async def scenario(uploads: InflightUploads, clock: Clock) -> None:
        crowd = [Sender(uploads, "a") for _ in range(4)]
        await settle()
        clock.now_s += GRACE_S / 2
        for size, sender in enumerate(crowd):
            await sender.grow(size)
        others = [Sender(uploads, "b") for _ in range(2)]
        await settle()
        assert [sender.ended.done() for sender in crowd] == [True, True, False, False]
        assert await crowd[0].ended == await crowd[1].ended == "gave way"
        assert await Sender(uploads, "b").ended == "refused"
        assert [await sender.end() for sender in crowd[2:] + others] == ["ended"] * 4

    run(scenario, max_bytes=100, max_uploads=4)


def test_bytes_are_shared_as_numbers_are() -> None:
    async def scenario(uploads: InflightUploads, _: Clock) -> None:
        large, small = Sender(uploads, "a"), Sender(uploads, "b")
        await large.grow(80)
        await small.grow(20)
        await small.grow(10)
        assert await large.ended == "gave way"
        assert await small.end() == "ended"

    run(scenario, max_bytes=100, max_uploads=9)


def test_of_the_uploads_of_one_address_those_give_way_that_stall() -> None:
    """As behind a proxy: none gives way that is steady or has just begun."""

    async def scenario(uploads: InflightUploads, clock: Clock) -> None:
        steady, stalls = Sender(uploads, "proxy"), Sender(uploads, "proxy")
        await stalls.grow(1000)
        for _ in range(int(LONG_S)):
            clock.now_s += 1
            await steady.grow(SLOW_BYTES_PER_S * 2)
        new = Sender(uploads, "proxy")
        assert await stalls.ended == "gave way"
        assert await Sender(uploads, "proxy").ended == "refused"
        assert [await steady.end(), await new.end()] == ["ended"] * 2

    run(scenario, max_bytes=2**30, max_uploads=2)


def test_what_has_arrived_does_not_give_way() -> None:
    async def scenario(uploads: InflightUploads, clock: Clock) -> None:
        done = Sender(uploads, "a")
        await done.grow(90)
        await done.complete()
        clock.now_s += LONG_S
        assert await Sender(uploads, "b", declared=20).ended == "refused"
        assert await done.end() == "ended"

    run(scenario, max_bytes=100, max_uploads=1)


def test_nothing_gives_way_in_vain() -> None:
    async def scenario(uploads: InflightUploads, clock: Clock) -> None:
        done, slow = Sender(uploads, "a"), Sender(uploads, "a")
        await done.grow(90)
        await done.complete()
        await slow.grow(5)
        clock.now_s += LONG_S
        assert await Sender(uploads, "b", declared=20).ended == "refused"
        assert not slow.ended.done()
        assert [await done.end(), await slow.end()] == ["ended"] * 2

    run(scenario, max_bytes=100, max_uploads=9)


def test_a_cancelled_upload_is_forgotten_and_stays_cancelled() -> None:
    async def scenario(uploads: InflightUploads, _: Clock) -> None:
        one = Sender(uploads, "a")
        await one.grow(60)
        one.ended.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.ended

    run(scenario, max_bytes=100, max_uploads=1)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_client(address: str, client: str) -> None:
    assert client_at(address) == client
