"""Uploads in flight, over all protocols: bounded in bytes and in number, and shared fairly.

Knows nothing of protocols. Used from the event loop alone. The policy, all of it:
- An upload counts in number until it has arrived, and in bytes until nothing of it is kept.
- When there is no room, an upload that is still arriving gives way: the slowest one of the client
  that holds the most. A client that holds the most itself is refused, unless it has an upload that
  has had some time and is slow; many clients may share the address of a proxy.
- If too little can give way, nothing does, and whoever needs the room is refused.
A client is an address, or the network of 64 bits that an IPv6 address is in.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address

from service.errors import UploadsFull

GRACE_S = 2.0  # before this an upload gives way to other clients only
SLOW_BYTES_PER_S = 64 * 2**10  # from this speed on an upload gives way to other clients only
_SPEED_WINDOW_S = 2.0  # what came this long ago counts 1/e of what comes now
_RETRY_AFTER_S = 1


class Upload:
    """One request body. `with` blocks of `InflightUploads.begin` have one each."""

    def __init__(self, uploads: "InflightUploads", client: str, task: "asyncio.Task[object]"):
        self._uploads = uploads
        self._task = task
        self._began = self._measured = uploads.now()
        self._recent = 0.0  # bytes
        self.client = client
        self.bytes = 0
        self.arriving = True
        self.gave_way = False

    def grow(self, size: int) -> None:
        """So many more bytes have arrived. Raises `UploadsFull`."""
        self._uploads.make_room(self, size)
        self.bytes += size
        self._recent = self._recent_bytes() + size
        self._measured = self._uploads.now()

    def complete(self) -> None:
        """All has arrived: from now on it does not give way."""
        self.arriving = False

    def keep(self, size: int) -> None:
        """So many bytes are kept of what has arrived; the others are free."""
        self.bytes = min(self.bytes, size)

    def give_way(self) -> None:
        """Interrupt the block of this upload, which raises `UploadsFull`."""
        self.gave_way = True
        self._uploads.forget(self)
        self._task.cancel()

    @property
    def bytes_per_s(self) -> float:
        """The speed at which it has arrived in the last few seconds."""
        return self._recent_bytes() / _SPEED_WINDOW_S

    @property
    def slow(self) -> bool:
        """Whether it has had some time and did not use it."""
        age_s = self._uploads.now() - self._began
        return age_s >= GRACE_S and self.bytes_per_s < SLOW_BYTES_PER_S

    def _recent_bytes(self) -> float:
        return self._recent * math.exp((self._measured - self._uploads.now()) / _SPEED_WINDOW_S)


class InflightUploads:
    """All uploads of a process. `clock` gives the time in seconds."""

    def __init__(
        self, max_bytes: int, max_uploads: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._max_uploads = max_uploads
        self._uploads: dict[Upload, None] = {}  # ordered by age
        self.now = clock

    @property
    def bytes(self) -> int:
        return sum(upload.bytes for upload in self._uploads)

    @property
    def arriving(self) -> int:
        return sum(upload.arriving for upload in self._uploads)

    @contextmanager
    def begin(self, address: str, declared: int = 0) -> Iterator[Upload]:
        """An upload from an address, until the block ends; only a task may begin one.

        `declared` bytes are known to come. Raises `UploadsFull` if there is no room for them, or
        in the middle of the block, when the upload gives way.
        """
        task = asyncio.current_task()
        assert task
        cancelling = task.cancelling()
        upload = Upload(self, _client(address), task)
        self.make_room(upload, declared, number=1)
        self._uploads[upload] = None
        try:
            yield upload
        except asyncio.CancelledError:
            if upload.gave_way and task.uncancel() <= cancelling:
                raise _full("this upload was slow, and others needed its room") from None
            raise
        finally:
            self.forget(upload)

    def forget(self, upload: Upload) -> None:
        self._uploads.pop(upload, None)

    def make_room(self, wanting: Upload, size: int, number: int = 0) -> None:
        """Have uploads give way until there is room for more. Raises `UploadsFull`."""
        leaving: list[Upload] = []
        staying = self._uploads
        while not self._fits(staying, size, number):
            one = self._first_to_leave(staying, wanting, size, number)
            if one is None:
                raise _full("too many bytes or request bodies are on their way")
            leaving.append(one)
            staying = {upload: None for upload in staying if upload is not one}
        for upload in leaving:
            upload.give_way()

    def _fits(self, uploads: Collection[Upload], size: int, number: int) -> bool:
        return (
            sum(upload.bytes for upload in uploads) + size <= self._max_bytes
            and sum(upload.arriving for upload in uploads) + number <= self._max_uploads
        )

    def _first_to_leave(
        self, uploads: Collection[Upload], wanting: Upload, size: int, number: int
    ) -> Upload | None:
        sizes = Counter({wanting.client: size})
        numbers = Counter({wanting.client: number})
        for upload in uploads:
            sizes[upload.client] += upload.bytes
            numbers[upload.client] += upload.arriving

        def share(client: str) -> float:
            return max(sizes[client] / self._max_bytes, numbers[client] / self._max_uploads)

        own = share(wanting.client)
        candidates = [
            upload
            for upload in uploads
            if upload.arriving
            and upload is not wanting
            and (share(upload.client) > own or (upload.client == wanting.client and upload.slow))
        ]
        return max(candidates, key=lambda one: (share(one.client), -one.bytes_per_s), default=None)


def _client(address: str) -> str:
    """Whose upload it is: one subscriber has a whole network of IPv6, or one address of IPv4."""
    if ":" not in address:
        return address
    with suppress(ValueError):
        whole = IPv6Address(address)
        return str(whole.ipv4_mapped or IPv6Address(int(whole) >> 64 << 64))
    return address


def _full(detail: str) -> UploadsFull:
    return UploadsFull(detail, retry_after_s=_RETRY_AFTER_S)
