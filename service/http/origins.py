"""What pages of other origins may not do: make their visitors' browsers send requests that change
or cost something (cross-site request forgery).

A page can send a form or a text anywhere without asking first, to 127.0.0.1 too, and the browser
merely keeps the answer from it. Browsers say where a request comes from: in `Sec-Fetch-Site` to
https and to the same machine, and in `Origin` with every POST. Other clients send neither. A page
cannot add an API key, or any header that is not harmless, before the service has allowed it (CORS),
so none of this is asked where keys are. Go's net/http decides in the same way
(CrossOriginProtection).
"""

from collections.abc import Sequence

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import CrossOrigin
from service.http.protocol import REFUSAL

_SAFE = ("GET", "HEAD", "OPTIONS")


class RefuseOtherOrigins:
    """Marks such requests as refused, for `AnswerRefusals` to answer.

    `allowed` are the origins whose pages may read answers, or `*`: they may ask too.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE and "*" not in self._allowed:
            headers = Headers(scope=scope)
            if headers.get("origin") not in self._allowed and _from_elsewhere(headers):
                scope.setdefault("state", {}).setdefault(REFUSAL, _refusal())
        await self._app(scope, receive, send)


async def refuse_other_origins(request: Request) -> None:
    """For routes that no other origin may use without a key, even one that may read answers.

    Raises `CrossOrigin`.
    """
    if _from_elsewhere(request.headers):
        raise _refusal()


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin has sent the request."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")  # none: the address bar
    origin = headers.get("origin")
    if origin is None:
        return False
    # A proxy may have put another name in Host. Pages cannot set X-Forwarded-Host.
    given = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    hosts = {host.strip().lower() for host in given} - {""}
    return origin.lower().partition("://")[2] not in hosts


def _refusal() -> CrossOrigin:
    return CrossOrigin(
        "the browser says that a page of another origin has sent this; such a page needs an API "
        "key, or its origin in DEEPVIT_CORS_ORIGINS, which is not enough to load or unload models; "
        "if it is the service's own page, the proxy in front has to pass Host on, or to set "
        "X-Forwarded-Host"
    )
