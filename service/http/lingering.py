"""What a client still sends after its answer: it is read and discarded, within bounds.

Many clients read their answer only when they have sent the whole body. Closing a connection with
unread bytes makes the operating system reset it, and the answer is lost.
"""

import asyncio
from collections.abc import Callable
from typing import Any

MAX_LINGER_BYTES = 256 * 2**20
_LINGER_S = 30
_DRAINING_LINGER_S = 2


class LingeringTransport(asyncio.Transport):
    """A transport whose `close` gives the client the time to read its answer.

    `unread` says whether more of a request is to come. If so, `close` ends only what the server
    sends; the connection ends when the client closes it, is silent for `idle_s`, or goes beyond a
    bound. `wrote` is told of the bytes that are written.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        idle_s: float,
        wrote: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.unread = False
        self._transport = transport
        self._loop = loop
        self._idle_s = idle_s
        self._wrote = wrote
        self._longest_s: float = _LINGER_S
        self._closing = False
        self._discarded = 0  # bytes
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self.is_closing():
            return
        if not self.unread:
            self._transport.close()
            return
        self._closing = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self.start_discarding()

    def start_discarding(self) -> None:
        """From now on what `received` is told of counts against the bounds."""
        if self._timer is None:
            self._discarded = 0
            self._deadline = self._loop.time() + self._longest_s
            self._restart_timer()

    def received(self, size: int) -> None:
        """Take note of input, in bytes."""
        if self._timer is None:
            return
        self._discarded += size
        if self._discarded > MAX_LINGER_BYTES:
            self.abort()
        else:
            self._restart_timer()

    def stop_discarding(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self) -> None:
        """The server shuts down: from now on linger for a moment only."""
        self._longest_s = _DRAINING_LINGER_S
        if self._timer is not None:
            self._deadline = min(self._deadline, self._loop.time() + self._longest_s)
            self._restart_timer()

    def abort(self) -> None:
        self.stop_discarding()
        self._transport.abort()

    def _restart_timer(self) -> None:
        self.stop_discarding()
        when = min(self._deadline, self._loop.time() + self._idle_s)
        self._timer = self._loop.call_at(when, self.abort)

    # The rest of what uvicorn uses.

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if not self._closing:
            self._transport.write(data)
            self._wrote(len(data))

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
