"""Who gives way when a bound on memory is reached, so that no client can hold all of it.

What is slow gives way to what is not: of the client that holds the most, the slowest transfer. A
client that holds the most itself gets more only in place of a transfer of its own that has had some
time and is slow; many people may share the address of a proxy.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Protocol, TypeVar

GRACE_S = 2.0  # before this a transfer gives way to other clients only
SLOW_BYTES_PER_S = 64 * 2**10  # from this speed on it gives way to other clients only
_WINDOW_S = 2.0

Clock = Callable[[], float]  # gives the time in seconds


class Pace:
    """How fast a transfer moves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = self._window_began = clock()
        self._now = self._before = 0  # bytes in this window of time, and in the one before

    def moved(self, size: int) -> None:
        self._renew_windows()
        self._now += size

    @property
    def bytes_per_s(self) -> float:
        """The speed in the last few seconds."""
        self._renew_windows()
        return (self._before + self._now) / (_WINDOW_S + self._clock() - self._window_began)

    @property
    def slow(self) -> bool:
        """Whether it has had some time and did not use it."""
        return self._clock() - self._began >= GRACE_S and self.bytes_per_s < SLOW_BYTES_PER_S

    def _renew_windows(self) -> None:
        passed = int((self._clock() - self._window_began) / _WINDOW_S)
        if passed:
            self._window_began += passed * _WINDOW_S
            self._before, self._now = self._now if passed == 1 else 0, 0


class Transfer(Protocol):
    """An upload, or an answer that is being sent."""

    client: str
    pace: Pace


AnyTransfer = TypeVar("AnyTransfer", bound=Transfer)


def who_leaves(
    transfers: Collection[AnyTransfer],
    client: str,
    *,
    fits: Callable[[Collection[AnyTransfer]], bool],
    shares: Callable[[Collection[AnyTransfer]], Mapping[str, float]],
    may_leave: Callable[[AnyTransfer], bool],
) -> list[AnyTransfer] | None:
    """The transfers that end so that `client` gets what it asks for; None if it cannot.

    `fits` says whether there is room beside those that stay; `shares` has what each client holds
    of them, and for `client` what it would hold.
    """
    leaving: list[AnyTransfer] = []
    staying = list(transfers)
    while not fits(staying):
        one = _first_to_leave(filter(may_leave, staying), shares(staying), client)
        if one is None:
            return None
        leaving.append(one)
        staying.remove(one)
    return leaving


def _first_to_leave(
    transfers: Iterable[AnyTransfer], shares: Mapping[str, float], client: str
) -> AnyTransfer | None:
    candidates = [
        one
        for one in transfers
        if shares[one.client] > shares[client] or (one.client == client and one.pace.slow)
    ]
    return max(
        candidates, key=lambda one: (shares[one.client], -one.pace.bytes_per_s), default=None
    )


def client_at(address: str) -> str:
    """Whose address it is: one subscriber has a whole network of IPv6, or one address of IPv4."""
    if ":" not in address:
        return address
    with suppress(ValueError):
        whole = IPv6Address(address)
        return str(whole.ipv4_mapped or IPv6Address(int(whole) >> 64 << 64))
    return address
