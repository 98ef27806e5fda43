"""Work of a request on a thread pool, while its client waits and until its deadline."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from fastapi import Request

from service.errors import DeadlineExceeded
from service.http.disconnects import while_connected

T = TypeVar("T")


async def in_pool(request: Request, pool: Executor, deadline: float, work: Callable[[], T]) -> T:
    """The result of `work`, which is not begun once the deadline has passed or the client has left.

    `deadline` is a time of `time.perf_counter`. Raises `DeadlineExceeded`, `ClientGone`, and what
    `work` raises.
    """

    async def wait() -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                return await loop.run_in_executor(pool, work)
        except TimeoutError as exc:
            raise DeadlineExceeded("the answer was not built by the deadline") from exc

    return await while_connected(request, wait())
