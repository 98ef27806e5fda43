"""Answers that their clients do not read: bounded in time, and all together in bytes.

An answer stays in memory until the client has taken it. A client that takes nothing for a while
loses its connection. When all answers that are computed or sent have too many bytes, those that are
read slowly give way to new ones as `service.limits.fairness` says, or the new one is refused.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import Scope

from service.errors import AnswersUnread
from service.limits.fairness import Clock, Pace, client_at, who_leaves

OUTBOX = "outbox"  # key in the state of a scope
_CHECK_EVERY_S = 1.0
_SMALL_BYTES = 64 * 2**10  # answers that are never refused; an error is one of them
_RETRY_AFTER_S = 1


class Outbox:
    """What one connection has still to send, and what is being computed for it."""

    def __init__(self, answers: "UnsentAnswers", transport: asyncio.Transport) -> None:
        self._answers = answers
        self._transport = transport
        self._written = self._sent = 0
        self._moved = 0.0  # when the client last took something
        self.client = ""
        self.expected = 0  # bytes of an answer that is being computed
        self.pace = Pace(answers.now)

    @property
    def unsent(self) -> int:
        """Bytes in the memory of this process; the operating system holds more."""
        return self._transport.get_write_buffer_size()

    @property
    def stalled_s(self) -> float:
        return self._answers.now() - self._moved

    def expect(self, address: str, size: int) -> None:
        """An answer to a client at this address is about to be computed. Raises `AnswersUnread`."""
        self.make_room(address, size)
        self.expected = size
        self._answers.hold(self, size)

    def make_room(self, address: str, size: int) -> None:
        """The answer is there, and about to be sent. Raises `AnswersUnread`."""
        self.client = client_at(address)
        self.expected = 0
        self._answers.make_room(self, size)

    def wrote(self, size: int) -> None:
        """So many bytes have been handed to the transport."""
        self._written += size
        if self.unsent <= size:  # there was nothing before
            self._sent = self._written - self.unsent
            self._moved = self._answers.now()
            self.pace = Pace(self._answers.now)
        self._answers.hold(self, size)

    def measure(self) -> None:
        """Take note of what the client has taken since the last time."""
        sent = self._written - self.unsent
        if sent > self._sent:
            self._moved = self._answers.now()
            self.pace.moved(sent - self._sent)
            self._sent = sent

    def discard(self) -> None:
        """The connection is lost."""
        self._answers.forget(self)

    def cut_off(self) -> None:
        self._answers.forget(self)
        self._transport.abort()


class UnsentAnswers:
    """The outboxes of all connections of a server that have lately been written to."""

    def __init__(self, max_bytes: int, stall_s: float, clock: Clock = time.monotonic) -> None:
        """A client that takes nothing for `stall_s` seconds is cut off."""
        self._max_bytes = max_bytes
        self._stall_s = stall_s
        self._outboxes: dict[Outbox, None] = {}  # a set that keeps its order
        self._at_most = 0  # bytes unsent; summing them up for each answer would take long
        self._timer: asyncio.TimerHandle | None = None
        self.now = clock

    def hold(self, outbox: Outbox, size: int) -> None:
        """So many bytes more are in an outbox, or will be."""
        self._at_most += size
        self._outboxes[outbox] = None
        if self._timer is None:
            self._start_timer()

    def forget(self, outbox: Outbox) -> None:
        self._outboxes.pop(outbox, None)

    def check(self) -> None:
        """Cut off whoever has taken nothing for too long."""
        for outbox in list(self._outboxes):
            outbox.measure()
            if outbox.unsent and outbox.stalled_s >= self._stall_s:
                outbox.cut_off()
            elif not (outbox.unsent or outbox.expected):
                self.forget(outbox)
        self._at_most = _held(self._outboxes)

    def make_room(self, wanting: Outbox, size: int) -> None:
        """Have answers give way until there is room. Raises `AnswersUnread`."""
        if self._at_most + size <= self._max_bytes:
            return
        self.check()
        leaving = who_leaves(
            self._outboxes,
            wanting.client,
            fits=lambda outboxes: _held(outboxes) + size <= self._max_bytes,
            shares=lambda outboxes: _shares(outboxes, wanting.client, size),
            may_leave=lambda outbox: not outbox.expected and outbox is not wanting,
        )
        if leaving is None and size > _SMALL_BYTES:
            raise AnswersUnread(
                f"{self._at_most:,} bytes of answers are being computed or wait to be read",
                retry_after_s=_RETRY_AFTER_S,
            )
        for outbox in leaving or ():
            outbox.cut_off()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self._timer_expired)

    def _timer_expired(self) -> None:
        self._timer = None
        self.check()
        if self._outboxes:
            self._start_timer()


def expect_answer(request: Request, size: int) -> None:
    """Call before an answer of about so many bytes is computed. Raises `AnswersUnread`."""
    outbox: Outbox | None = request.scope.get("state", {}).get(OUTBOX)
    if outbox and size > _SMALL_BYTES:
        outbox.expect(client_address(request.scope), size)


def _held(outboxes: Iterable[Outbox]) -> int:
    return sum(outbox.unsent + outbox.expected for outbox in outboxes)


def _shares(outboxes: Iterable[Outbox], client: str, size: int) -> Counter[str]:
    """The bytes of each client, and those that `client` would have."""
    shares = Counter({client: size})
    for outbox in outboxes:
        shares[outbox.client] += outbox.unsent + outbox.expected
    return shares


def client_address(scope: Scope) -> str:
    address: str = (scope.get("client") or ("",))[0]
    return address
