"""API keys, checked the same way for HTTP and gRPC."""

import hmac
from collections.abc import Sequence

from service.errors import Unauthorized


class ApiKeys:
    """Several keys are valid at once, so that they can be rotated; no keys admit everybody."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def check(self, *given: str) -> None:
        """One valid key is enough: a gateway may have added a token of its own beside it.

        Raises `Unauthorized`.
        """
        # Every key is compared, in constant time: the duration says nothing about a wrong key.
        found = sum(hmac.compare_digest(one.encode(), key) for one in given for key in self._keys)
        if self._keys and not found:
            raise Unauthorized("send Authorization: Bearer KEY, or X-API-Key: KEY")
