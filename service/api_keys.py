"""Who may ask, where API keys are set."""

import hmac
from collections.abc import Sequence

from service.errors import Unauthorized


class Keys:
    """Several are valid at once, so that they can be rotated; without any, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def check(self, given: str) -> None:
        """Raises `Unauthorized`."""
        # Every key is compared, in time that tells nothing about how much of it was right.
        found = sum(hmac.compare_digest(given.encode(), key) for key in self._keys)
        if self._keys and not found:
            raise Unauthorized("send Authorization: Bearer KEY, or X-API-Key: KEY")
