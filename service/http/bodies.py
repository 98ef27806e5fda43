"""Request bodies, limited in bytes and in time while they arrive."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import ClientGone, RequestTimeout, UploadTooLarge


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises `UploadTooLarge`, `RequestTimeout` or `ClientGone`."""
    check_declared_length(request, max_bytes)
    async with body_timeout(timeout_s):
        return b"".join([chunk async for chunk in limited_chunks(request, max_bytes)])


@asynccontextmanager
async def body_timeout(timeout_s: float) -> AsyncIterator[None]:
    """Limits how long a slow client can hold its queue slot. Raises `RequestTimeout`."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise RequestTimeout(f"the request body took longer than {timeout_s:g} s") from exc


def check_declared_length(request: Request, max_bytes: int) -> None:
    """Refuse a body by its Content-Length, before it is read. Raises `UploadTooLarge`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)


async def limited_chunks(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body as they arrive, whatever length was declared.

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
        raise ClientGone("the client closed the connection while sending the body") from exc


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the request body has more than {max_bytes:,} bytes")
