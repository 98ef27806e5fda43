"""Uploads in flight, over all protocols: bounded in bytes and in number, and shared fairly.

Knows nothing of protocols. Used from the event loop alone. An upload counts in number until it has
arrived, and in bytes until nothing of it is kept. When there is no room, uploads that are still
arriving give way as `limits.fairness` says. If too little can give way, nothing does, and whoever
needs the room is refused.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from service.errors import UploadsFull
from service.limits.fairness import Clock, Pace, client_at, who_leaves

_RETRY_AFTER_S = 1


class Upload:
    """One request body; `InflightUploads.begin` makes them."""

    def __init__(
        self, uploads: "InflightUploads", client: str, pace: Pace, task: "asyncio.Task[object]"
    ) -> None:
        self._uploads = uploads
        self._task = task
        self.client = client
        self.pace = pace
        self.bytes = 0
        self.arriving = True
        self.gave_way = False

    def grow(self, size: int) -> None:
        """So many more bytes have arrived. Raises `UploadsFull`."""
        self.reserve(size)
        self.pace.moved(size)

    def reserve(self, size: int) -> None:
        """Hold room for so many bytes that may arrive. Raises `UploadsFull`."""
        self._uploads.make_room(self, size)
        self._uploads.note(self, self.bytes + size, self.arriving)

    def complete(self) -> None:
        """All has arrived: from now on it does not give way."""
        self._uploads.note(self, self.bytes, arriving=False)

    def keep(self, size: int) -> None:
        """So many bytes are kept of what has arrived; the others are free."""
        self._uploads.note(self, min(self.bytes, size), self.arriving)

    def give_way(self) -> None:
        """Interrupt the block of this upload, which raises `UploadsFull`."""
        self.gave_way = True
        self._uploads.forget(self)
        self._task.cancel()


class InflightUploads:
    """All uploads of a process."""

    def __init__(self, max_bytes: int, max_uploads: int, clock: Clock = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_uploads = max_uploads
        self._clock = clock
        self._uploads: dict[Upload, None] = {}  # a set that keeps its order
        # Sums over all uploads; taking them anew for each piece of a body would take long.
        self.bytes = 0
        self.arriving = 0

    @contextmanager
    def begin(self, address: str, declared: int = 0) -> Iterator[Upload]:
        """An upload from an address, until the block ends; only a task may begin one.

        `declared` bytes are known to come. Raises `UploadsFull` if there is no room for them, or
        in the middle of the block, when the upload gives way.
        """
        task = asyncio.current_task()
        assert task
        cancelling = task.cancelling()
        upload = Upload(self, client_at(address), Pace(self._clock), task)
        self.make_room(upload, declared, number=1)
        self._uploads[upload] = None
        self.arriving += 1
        try:
            yield upload
        except asyncio.CancelledError:
            if upload.gave_way and task.uncancel() <= cancelling:
                raise _full("the body came slowly, and others needed its room") from None
            raise
        finally:
            self.forget(upload)

    def note(self, upload: Upload, size: int, arriving: bool) -> None:
        """An upload holds so many bytes now; one that is forgotten counts no more."""
        if upload in self._uploads:
            self.bytes += size - upload.bytes
            self.arriving += arriving - upload.arriving
        upload.bytes, upload.arriving = size, arriving

    def forget(self, upload: Upload) -> None:
        if upload in self._uploads:
            del self._uploads[upload]
            self.bytes -= upload.bytes
            self.arriving -= upload.arriving

    def make_room(self, wanting: Upload, size: int, number: int = 0) -> None:
        """Have uploads give way until there is room for more. Raises `UploadsFull`."""
        if self.bytes + size <= self._max_bytes and self.arriving + number <= self._max_uploads:
            return
        leaving = who_leaves(
            self._uploads,
            wanting.client,
            fits=lambda uploads: (
                _bytes(uploads) + size <= self._max_bytes
                and _arriving(uploads) + number <= self._max_uploads
            ),
            shares=lambda uploads: self._shares(uploads, wanting.client, size, number),
            may_leave=lambda upload: upload.arriving and upload is not wanting,
        )
        if leaving is None:
            raise _full("too many request bodies, or too large ones, are on their way")
        for upload in leaving:
            upload.give_way()

    def _shares(
        self, uploads: Iterable[Upload], client: str, size: int, number: int
    ) -> dict[str, float]:
        """The part of either bound that each client holds, and that `client` would hold."""
        sizes, numbers = Counter({client: size}), Counter({client: number})
        for upload in uploads:
            sizes[upload.client] += upload.bytes
            numbers[upload.client] += upload.arriving
        return {
            one: max(sizes[one] / self._max_bytes, numbers[one] / self._max_uploads)
            for one in sizes
        }


def _bytes(uploads: Iterable[Upload]) -> int:
    return sum(upload.bytes for upload in uploads)


def _arriving(uploads: Iterable[Upload]) -> int:
    return sum(upload.arriving for upload in uploads)


def _full(detail: str) -> UploadsFull:
    return UploadsFull(detail, retry_after_s=_RETRY_AFTER_S)
