"""API keys for the HTTP API, if any are set. Health checks and metrics stay public."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.api_keys import ApiKeys
from service.http.middleware import PROBES
from service.http.prefix import path_below

_PUBLIC = (*PROBES, "/")
_bearer = HTTPBearer(auto_error=False, description="one of DEEPVIT_API_KEYS, if set")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same, as a header")


class RequireApiKey:
    """A dependency of every route."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = ApiKeys(keys)

    async def __call__(
        self,
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> None:
        """Raises `Unauthorized`. It is asynchronous so that FastAPI runs it on the event loop."""
        if path_below(request.scope) not in _PUBLIC:
            self._keys.check(bearer.credentials if bearer else "", header or "")
