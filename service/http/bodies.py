"""Request bodies, counted while they arrive: never more of one than allowed, nor for longer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import ClientGone, RequestTimeout, UploadTooLarge


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """All of it. Raises `UploadTooLarge`, `RequestTimeout` or `ClientGone`."""
    check_declared(request, max_bytes)
    async with in_time(timeout_s):
        return b"".join([chunk async for chunk in bounded(request, max_bytes)])


@asynccontextmanager
async def in_time(timeout_s: float) -> AsyncIterator[None]:
    """A client that sends slowly would hold its place in the queue. Raises `RequestTimeout`."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise RequestTimeout(f"the body took longer than {timeout_s:g} s") from exc


def check_declared(request: Request, max_bytes: int) -> None:
    """Refuse by Content-Length before anything is read. Raises `UploadTooLarge`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)


async def bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes, whatever length was declared.

    Raises `UploadTooLarge` or `ClientGone`.
    """
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            yield chunk
    except ClientDisconnect as exc:
        raise ClientGone("the client left while sending") from exc


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the request body has more than {max_bytes:,} bytes")
