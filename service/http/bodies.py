"""Request bodies: limited in bytes and in time while they arrive, each and all together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import ClientGone, RequestTimeout, UploadTooLarge
from service.http.dependencies import runtime_of
from service.limits.inflight import Upload

_MAX_DIGITS = 18  # of a length; more would be no length, and take Python long to read


@contextmanager
def receiving(request: Request, max_bytes: int) -> Iterator[Upload]:
    """Room for the body of a request, which is released when the block ends.

    Raises `UploadTooLarge` or `UploadsFull` by its Content-Length, before it is read, and
    `UploadsFull` when it is read too slowly.
    """
    declared = request.headers.get("content-length", "0").lstrip("0")
    length = int(declared) if declared.isdecimal() and len(declared) <= _MAX_DIGITS else 0
    if length > max_bytes or len(declared) > _MAX_DIGITS:
        raise _too_large(max_bytes)
    address = request.client.host if request.client else ""
    with runtime_of(request).uploads.begin(address, length) as upload:
        yield upload


async def read_body(request: Request, upload: Upload, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises `UploadTooLarge`, `UploadsFull`, `RequestTimeout` or `ClientGone`."""
    body = bytearray()  # a list of small pieces would take many times their bytes
    async with body_timeout(timeout_s):
        async for chunk in limited_chunks(request, upload, max_bytes):
            body += chunk
    upload.complete()
    return bytes(body)


@asynccontextmanager
async def body_timeout(timeout_s: float) -> AsyncIterator[None]:
    """Limits how long a slow client is waited for. Raises `RequestTimeout`."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        raise RequestTimeout(f"the request body took longer than {timeout_s:g} s") from exc


async def limited_chunks(
    request: Request, upload: Upload, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The chunks of the body as they arrive, whatever length was declared.

    Raises `UploadTooLarge`, `UploadsFull` or `ClientGone`.
    """
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            upload.grow(len(chunk))
            yield chunk
    except ClientDisconnect as exc:
        raise ClientGone("the client closed the connection while sending the body") from exc


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the request body has more than {max_bytes:,} bytes")
