"""Who may ask: API keys, where any are set. Health and metrics stay public."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.api_keys import Keys

_PUBLIC = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/")
_bearer = HTTPBearer(auto_error=False, description="one of DEEPVIT_API_KEYS, where set")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same, as a header")


class ApiKeys:
    """A dependency of every route."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = Keys(keys)

    async def __call__(
        self,
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> None:
        """Raises `Unauthorized`. Asynchronous, or FastAPI would run it on another thread."""
        if request.url.path not in _PUBLIC:
            self._keys.check(bearer.credentials if bearer else header or "")
