"""Work that ends before its time: its client has left, or the server's time to drain is over."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from service.errors import ClientGone, Stopped
from service.http.dependencies import runtime_of

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises `ClientGone`, or `Stopped` if the server cancels what it has not answered at its end.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_disconnected(request))
    disconnect.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if disconnect.done() and not disconnect.cancelled():
            raise ClientGone("the client closed the connection") from None
        if runtime_of(request).draining:
            raise Stopped("the server is shutting down; ask another one") from None
        raise
    finally:
        task.cancel()
        disconnect.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # any other message is an unread part of the body
