"""The messages of calls: each is read once there is room for it, and parsed if it stays small.

gRPC hands messages over whole and does not say how long one is that is still arriving. So each
that may arrive takes the room of the largest one, in the budget that HTTP's bodies share.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from service.errors import MalformedUpload, RequestTimeout, UploadsFull
from service.limits.fairness import GRACE_S
from service.limits.inflight import Upload
from service.oip.grpc.fields import unpacked_bytes
from service.runtime import Runtime

Parse = Callable[[bytes], Any]  # a message class's FromString

_PATIENCE_S = 2 * GRACE_S + 1  # for room; by then messages that do not arrive have given way
_ROOM_CHECK_S = 0.1
_DRAIN_CHECK_S = 0.5  # how often an idle stream looks whether the server drains


class Messages:
    """Reads the messages of all calls to one server."""

    def __init__(self, runtime: Runtime, max_bytes: int) -> None:
        """No message has more than `max_bytes`: gRPC itself refuses those that have."""
        self._runtime = runtime
        self._max_bytes = max_bytes
        # By address: clients wait in a line each, so that none waits for the room of another's.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, context: ServicerContext, parse: Parse) -> AsyncIterator[Any]:
        """The only message of a call; its room is taken until the block ends.

        Raises `UploadsFull`, `RequestTimeout`, `MalformedUpload` or `InvalidInference`.
        """
        timeout_s = self._runtime.upload_limits.timeout_s
        with ExitStack() as room:
            upload = await self._make_room(context, room)
            try:
                async with asyncio.timeout(timeout_s):
                    content = await context.read()
            except TimeoutError as exc:
                raise RequestTimeout(f"the message did not arrive within {timeout_s:g} s") from exc
            if content is grpc.aio.EOF:
                raise MalformedUpload("a call needs a message")
            request = _parsed(content, parse, upload)
            del content
            yield request

    async def each(self, context: ServicerContext, parse: Parse) -> AsyncGenerator[Any, None]:
        """The messages of a stream, which may be idle between them until others need its room.

        Raises what `one` raises but for `RequestTimeout`, and `Stopped` once the server drains.
        """
        while True:
            with ExitStack() as room:
                upload = await self._make_room(context, room)
                content = await self._next(context)
                if content is grpc.aio.EOF:
                    return
                request = _parsed(content, parse, upload)
                del content
                yield request

    async def _next(self, context: ServicerContext) -> Any:
        """The next message of a stream. Raises `Stopped` on drain, so that an idle stream ends."""
        reading = asyncio.ensure_future(context.read())
        try:
            while not (await asyncio.wait({reading}, timeout=_DRAIN_CHECK_S))[0]:
                self._runtime.check_working()
        finally:
            reading.cancel()
        return reading.result()

    async def _make_room(self, context: ServicerContext, room: ExitStack) -> Upload:
        """Room for the largest message; it may take a while to be free. Raises `UploadsFull`."""
        address = _address(context)
        line = self._lines.setdefault(address, asyncio.Lock())
        full = UploadsFull("too many messages are on their way", retry_after_s=1)
        try:
            async with asyncio.timeout(_PATIENCE_S), line:
                while True:
                    begun = self._runtime.uploads.begin(address, self._max_bytes)
                    try:
                        upload = room.enter_context(begun)
                    except UploadsFull as exc:
                        full = exc
                        await asyncio.sleep(_ROOM_CHECK_S)
                    else:
                        upload.reserve(self._max_bytes)
                        return upload
        except TimeoutError:
            raise full from None


def _parsed(content: bytes, parse: Parse, upload: Upload) -> Any:
    """The message, which has arrived: from now on it takes the room that it needs."""
    upload.complete()
    kind = parse.__self__.DESCRIPTOR  # type: ignore[attr-defined]
    needed = max(len(content), unpacked_bytes(content, kind))
    upload.keep(needed)
    upload.reserve(needed - upload.bytes)
    try:
        return parse(content)
    except DecodeError as exc:
        raise MalformedUpload("this is not the message that the method takes") from exc


def _address(context: ServicerContext) -> str:
    """The client's address, from `ipv4:127.0.0.1:40000` or `ipv6:%5B::1%5D:40000`."""
    _, _, place = unquote(context.peer()).partition(":")
    return place.rpartition(":")[0].strip("[]")
