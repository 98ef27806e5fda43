"""Work of a request on a thread pool, while its client waits and until its deadline."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from fastapi import Request

from service.http.disconnects import while_connected
from service.pipeline import by_deadline

T = TypeVar("T")


async def in_pool(request: Request, pool: Executor, deadline: float, work: Callable[[], T]) -> T:
    """The result of `work`, which is not begun once the deadline has passed or the client has left.

    `deadline` is a time of `time.perf_counter`. Raises `DeadlineExceeded`, `ClientGone`, and what
    `work` raises.
    """
    return await while_connected(request, by_deadline(deadline, pool, work))
