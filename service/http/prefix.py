"""The prefix of the paths at which clients reach the service: /deepvit in host/deepvit/models.

A proxy in front of the service has one, and either takes it off a request's path or leaves it on.
ASGI calls it root_path: it comes first in a request's path, whatever the proxy did.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_PREFIX = re.compile(rb"(/[A-Za-z0-9._~-]+)+")  # two slashes would begin the name of a host
_MAX_PREFIX_BYTES = 256


def path_below(scope: Scope) -> str:
    """The path without its prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class ReadProxyHeaders:
    """uvicorn's reader of what trusted proxies say about a request, and X-Forwarded-Prefix.

    It has to be the outermost middleware: uvicorn's reader puts the client's address in place of
    the proxy's. `trusted` has addresses or networks with commas between them, or is `*`.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        uvicorn_app: Any = app  # its types of ASGI's messages are narrower than Starlette's
        self._reader: Any = ProxyHeadersMiddleware(uvicorn_app, trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            client = scope.get("client")
            if (client[0] if client else None) in self._reader.trusted_hosts:
                scope["root_path"] = _forwarded_prefix(scope["headers"])
        await self._reader(scope, receive, send)


def _forwarded_prefix(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The last X-Forwarded-Prefix; none if it could not stand in an address as it is."""
    found = [value.strip().rstrip(b"/") for name, value in headers if name == b"x-forwarded-prefix"]
    if found and len(found[-1]) <= _MAX_PREFIX_BYTES and _PREFIX.fullmatch(found[-1]):
        return found[-1].decode()
    return ""


class PutBelowPrefix:
    """Lets each path begin with the prefix, and keeps redirects below it.

    The prefix is `root_path`, or if that is empty, the one that a trusted proxy has named.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = scope["root_path"] = self._root_path or scope.get("root_path", "")
        path = scope["path"]
        if not f"{path}/".startswith(f"{prefix}/"):
            scope["path"] = prefix + path
            if raw_path := scope.get("raw_path"):
                scope["raw_path"] = prefix.encode() + raw_path

        async def send_relative(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _REDIRECT:
                location = _relative_redirect(path, scope["query_string"])
                message["headers"] = [
                    (name, location if name == b"location" else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        await self._app(scope, receive, send_relative)


_REDIRECT = 307  # Starlette's, to the same path with a slash at its end, or without slashes there


def _relative_redirect(path: str, query: bytes) -> bytes:
    """Where that leads, relative to the request's address, which is right behind every proxy.

    Starlette's own is absolute, with the scheme and the host of the last proxy's request.
    """
    bare = path.rstrip("/")
    name = quote(bare.rpartition("/")[2])
    slashes = len(path) - len(bare)
    reference = "../" * slashes + name if slashes else f"./{name}/"
    return reference.encode() + (b"?" + query if query else b"")
