"""The store in the memory of one process, limited in bytes and in time.

Not shared with other replicas; no method ever awaits anything.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from models.arrays import Pixels
from service.store import StoreState, count_lookup, expired_image, new_secret, unknown_image

_MAX_EXPIRED_IDS = 10_000  # that are remembered, to tell expired images from unknown ones


class MemoryStore:
    """Keeps the most recently used inputs of one process; used from one thread."""

    state: StoreState = "memory"
    remote = False

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._inputs: OrderedDict[str, Pixels] = OrderedDict()  # least recently used first
        self._expiry: OrderedDict[str, float] = OrderedDict()  # soonest first
        self._expired: OrderedDict[str, None] = OrderedDict()  # ids; oldest first
        self._bytes = 0
        self.lookups: Counter[str] = Counter()
        self.secret = new_secret()

    @property
    def bytes(self) -> int:
        return self._bytes

    async def open(self) -> None:
        """Nothing to open."""

    async def put(self, image_id: str, pixels: Pixels) -> None:
        """Keep an input, or renew its time to live; evicts the least recently used ones."""
        self._evict_expired()
        if image_id in self._inputs:
            self._drop(image_id)
        self._expired.pop(image_id, None)
        self._inputs[image_id] = pixels
        self._expiry[image_id] = self._clock() + self._ttl_s
        self._bytes += pixels.nbytes
        while self._bytes > self._max_bytes:
            self._evict(next(iter(self._inputs)))

    async def get(self, image_id: str) -> Pixels:
        """The input [height, width, 3]. Raises `UnknownImage` or `ExpiredImage`."""
        with count_lookup(self.lookups):
            self._evict_expired()
            if image_id in self._inputs:
                self._inputs.move_to_end(image_id)
                return self._inputs[image_id]
            if image_id in self._expired:
                raise expired_image(image_id, self._ttl_s)
            raise unknown_image(image_id)

    async def close(self) -> None:
        """Nothing to close."""

    def _evict_expired(self) -> None:
        now = self._clock()
        while self._expiry and next(iter(self._expiry.values())) <= now:
            self._evict(next(iter(self._expiry)))

    def _evict(self, image_id: str) -> None:
        self._drop(image_id)
        self._expired[image_id] = None
        while len(self._expired) > _MAX_EXPIRED_IDS:
            self._expired.popitem(last=False)

    def _drop(self, image_id: str) -> None:
        self._bytes -= self._inputs.pop(image_id).nbytes
        del self._expiry[image_id]
