"""Request bodies, counted while they arrive: never more of one than allowed."""

from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import ClientGone, UploadTooLarge


async def read_body(request: Request, max_bytes: int) -> bytes:
    """All of it. Raises `UploadTooLarge` or `ClientGone`."""
    check_declared(request, max_bytes)
    return b"".join([chunk async for chunk in bounded(request, max_bytes)])


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
