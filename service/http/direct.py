"""A route whose handler takes the request and nothing else."""

from starlette.routing import Match, Route
from starlette.types import Scope


class DirectRoute(Route):
    """Calls its handler at once, where FastAPI looks for parameters and dependencies first.

    The specification leaves it out: it belongs before a route of FastAPI's for the same path.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}  # as FastAPI's; it is what requests are counted by
