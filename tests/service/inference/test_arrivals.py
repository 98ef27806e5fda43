"""Results of threads that an event loop waits for: their order, errors, and few wake-ups."""

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from service.inference.arrivals import Arrivals


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    wake_ups = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.wake_ups += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def test_results_come_in_order_and_wake_the_loop_once() -> None:
    """However many callers wait for them: a batch has the items of many requests."""
    arrivals = Arrivals()
    callers: list[list[Future[int]]] = [[Future(), Future()] for _ in range(8)]
    loop = CountingLoop()

    def finish() -> None:
        for number, pair in enumerate(callers):
            for later, future in reversed(list(enumerate(pair))):
                future.set_result(2 * number + later)

    async def scenario() -> list[list[int]]:
        waiting = [asyncio.ensure_future(arrivals.of(pair)) for pair in callers]
        await asyncio.sleep(0)
        finish()
        found = await asyncio.gather(*waiting)
        assert loop.wake_ups == 1
        callers[0] = [Future()]
        again = asyncio.ensure_future(arrivals.of(callers[0]))
        await asyncio.sleep(0)
        callers[0][0].set_result(7)
        assert await again == [7]
        assert loop.wake_ups == 2
        return found

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        found = runner.run(scenario())
    assert found == [[2 * number, 2 * number + 1] for number in range(8)]


def test_the_first_that_fails_ends_the_wait() -> None:
    """The others go on, for whoever else may want them."""
    futures: list[Future[int]] = [Future(), Future()]

    async def scenario() -> None:
        waiting = asyncio.ensure_future(Arrivals().of(futures))
        await asyncio.sleep(0)
        futures[1].set_exception(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await waiting
        assert not futures[0].done()

    asyncio.run(scenario())


def test_a_caller_who_leaves_cancels_what_has_not_begun() -> None:
    futures: list[Future[int]] = [Future(), Future()]
    futures[0].set_running_or_notify_cancel()

    async def scenario() -> None:
        waiting = asyncio.ensure_future(Arrivals().of(futures))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [future.cancelled() for future in futures] == [False, True]

    asyncio.run(scenario())
    futures[0].set_result(1)  # its loop is closed, and nobody is told
