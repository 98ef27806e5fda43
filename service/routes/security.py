"""Who may ask: API keys, where any are set. Health and metrics stay public."""

import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.errors import Unauthorized

_PUBLIC = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/")
_bearer = HTTPBearer(auto_error=False, description="one of DEEPVIT_API_KEYS, where set")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same, as a header")


class ApiKeys:
    """A dependency of every route; several keys are valid at once, so that they can be rotated."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def __call__(
        self,
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> None:
        """Raises `Unauthorized`."""
        if not self._keys or request.url.path in _PUBLIC:
            return
        given = (bearer.credentials if bearer else header or "").encode()
        # Every key is compared, in time that tells nothing about how much of it was right.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise Unauthorized("send Authorization: Bearer KEY, or X-API-Key: KEY")
