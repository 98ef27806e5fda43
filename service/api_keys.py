"""API keys, checked the same way for HTTP and gRPC."""

import hmac
from collections.abc import Sequence
from contextlib import suppress

from service.errors import Unauthorized


class ApiKeys:
    """Several keys are valid at once, so that they can be rotated; no keys admit everybody."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [written for key in keys for written in _bytes_of(key)]

    def check(self, *given: str) -> None:
        """One valid key is enough: a gateway may have added a token of its own beside it.

        Keys are given as headers are read, one character a byte. Raises `Unauthorized`.
        """
        sent = [one.encode("latin-1", "replace") for one in given]
        # Every key is compared, in constant time: the duration says nothing about a wrong key.
        found = sum(hmac.compare_digest(one, key) for one in sent for key in self._keys)
        if self._keys and not found:
            raise Unauthorized("send Authorization: Bearer KEY, or X-API-Key: KEY")


def _bytes_of(key: str) -> set[bytes]:
    """What clients send for a key: UTF-8 as curl does, Latin-1 as browsers do.

    They differ only for keys that are not ASCII, which no client of gRPC can send.
    """
    found = {key.encode(errors="surrogateescape")}  # bytes of a variable that are not UTF-8
    with suppress(UnicodeEncodeError):
        found.add(key.encode("latin-1"))
    return found
