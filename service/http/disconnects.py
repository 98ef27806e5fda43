"""Work that ends before its time: its client has left, or the server's time to drain is over."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from service.errors import ClientGone, Stopped
from service.http.dependencies import runtime_of

LEFT = "left"  # key in the state of a scope: a future that is done once the client has left

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises `ClientGone`, or `Stopped` if the server cancels what it has not answered at its end.
    """
    task = asyncio.current_task()
    assert task
    working = True

    def stop(_: object) -> None:
        if working:  # the client may leave just after the end of the work
            task.cancel()

    told: asyncio.Future[None] | None = request.scope.get("state", {}).get(LEFT)
    left = told or asyncio.ensure_future(_disconnected(request))
    left.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if left.done() and not left.cancelled():
            task.uncancel()
            raise ClientGone("the client closed the connection") from None
        if runtime_of(request).draining:
            raise Stopped("the server is shutting down; ask another one") from None
        raise
    finally:
        working = False
        left.remove_done_callback(stop)
        if told is None:
            left.cancel()


async def _disconnected(request: Request) -> None:
    """For servers that tell it in no other way, and requests of which more may come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass  # any other message is an unread part of the body
