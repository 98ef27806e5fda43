"""Work whose client leaves: told by the protocol, or found by receiving. Without sockets."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request

from service.errors import ClientGone
from service.http.disconnects import LEFT, while_connected

Leave = Callable[[], None]


def asked(told: bool) -> tuple[Request, Leave]:
    """A request, and what its client does to leave."""
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, Any]:
        await left
        return {"type": "http.disconnect"}

    scope = {"type": "http", "state": {LEFT: left} if told else {}}
    return Request(scope, receive), lambda: left.set_result(None)


@pytest.mark.parametrize("told", [True, False])
def test_work_is_cancelled_when_its_client_leaves(told: bool) -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def scenario() -> None:
        request, leave = asked(told)
        asyncio.get_running_loop().call_soon(leave)
        with pytest.raises(ClientGone):
            await while_connected(request, work())
        assert ended == ["cancelled"]
        task = asyncio.current_task()
        assert task
        assert not task.cancelling()  # what follows is not cut short

    asyncio.run(scenario())


@pytest.mark.parametrize("told", [True, False])
def test_a_client_that_leaves_with_the_end_of_the_work_disturbs_nothing(told: bool) -> None:
    async def scenario() -> None:
        request, leave = asked(told)

        async def work() -> str:
            leave()
            return "done"

        assert await while_connected(request, work()) == "done"
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_connection_forgets_what_it_would_have_cancelled() -> None:
    """It has many requests, one after the other."""

    async def scenario() -> None:
        request, leave = asked(told=True)
        for turn in range(3):
            assert await while_connected(request, asyncio.sleep(0, turn)) == turn
        leave()
        await asyncio.sleep(0)

    asyncio.run(scenario())
