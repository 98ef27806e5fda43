"""The store of one process: inputs in its memory, bounded in bytes and in time.

Knows nothing of other replicas; its methods never wait.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from models.arrays import Pixels
from service.store import StoreState, counted, expired, unknown

_REMEMBERED = 10_000  # ids that are told apart from never seen ones after they expired


class MemoryStore:
    """Keeps the most recently used inputs of one process; used from one thread."""

    state: StoreState = "memory"

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[str, Pixels] = OrderedDict()  # least recently used first
        self._expiry: OrderedDict[str, float] = OrderedDict()  # soonest first
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._bytes = 0
        self.lookups: Counter[str] = Counter()

    @property
    def bytes(self) -> int:
        return self._bytes

    async def open(self) -> None:
        """Nothing to open."""

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or keep it longer; the least recently used ones make room."""
        self._expire()
        if image_id in self._kept:
            self._drop(image_id)
        self._gone.pop(image_id, None)
        self._kept[image_id] = pixels
        self._expiry[image_id] = self._clock() + self._ttl_s
        self._bytes += pixels.nbytes
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))

    async def get(self, image_id: str) -> Pixels:
        """The input [S, S, 3]. Raises `UnknownImage` or `ExpiredImage`."""
        with counted(self.lookups):
            self._expire()
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
            if image_id in self._gone:
                raise expired(image_id, self._ttl_s)
            raise unknown(image_id)

    async def close(self) -> None:
        """Nothing to close."""

    def _expire(self) -> None:
        now = self._clock()
        while self._expiry and next(iter(self._expiry.values())) <= now:
            self._forget(next(iter(self._expiry)))

    def _forget(self, image_id: str) -> None:
        self._drop(image_id)
        self._gone[image_id] = None
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def _drop(self, image_id: str) -> None:
        self._bytes -= self._kept.pop(image_id).nbytes
        del self._expiry[image_id]
