"""Which names the service answers to: the defence against DNS rebinding.

A page of evil.example, a name that is made to mean 127.0.0.1 once the page is loaded, is of the
same origin as a service there, and may do what the explorer may. Its requests name evil.example as
their host. Nobody can make an address or localhost mean another machine, nor register a name
without a dot.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import MisdirectedRequest
from service.http.protocol import REFUSAL

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::[0-9]{0,5})?", re.IGNORECASE)
_MAX_SHOWN = 100


class CheckHost:
    """Marks requests to other names as refused, for `AnswerRefusals` to answer.

    `names` are in lower case; `*.example.org` stands for all names below that one. Without any,
    names without a dot are admitted. Addresses and localhost always are, and so are requests
    without a Host header, which no browser sends.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(names)
        self._last_admitted: bytes | None = None
        self._suffixes = (
            ".localhost",
            *(name.removeprefix("*") for name in names if name.startswith("*.")),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for header, value in scope["headers"]:
                if header == b"host" and value != self._last_admitted:
                    if self._admits(host := value.decode("latin-1")):
                        self._last_admitted = value  # which nearly all requests name
                    else:
                        scope.setdefault("state", {}).setdefault(REFUSAL, _misdirected(host))
        await self._app(scope, receive, send)

    def _admits(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if not found:
            return False
        address, name = found.groups()
        if _is_address(address or name):
            return True
        name = (name or ".").lower().removesuffix(".")
        if name == "localhost" or name in self._names or name.endswith(self._suffixes):
            return True
        return not self._names and bool(name) and "." not in name


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _misdirected(host: str) -> MisdirectedRequest:
    return MisdirectedRequest(
        f"this service does not answer to {host[:_MAX_SHOWN]!r}; its operator can add names with "
        "DEEPVIT_ALLOWED_HOSTS"
    )
