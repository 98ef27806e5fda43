"""API keys for the HTTP API, if any are set: routers that are included with them need one."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.api_keys import ApiKeys

_bearer = HTTPBearer(auto_error=False, description="one of DEEPVIT_API_KEYS, if set")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same, as a header")


class RequireApiKey:
    """A dependency of every route that is not public."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = ApiKeys(keys)

    async def __call__(
        self,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> None:
        """Raises `Unauthorized`. It is asynchronous so that FastAPI runs it on the event loop."""
        self._keys.check(bearer.credentials if bearer else "", header or "")
