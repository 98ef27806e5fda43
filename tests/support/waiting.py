"""Waiting for what another process brings about."""

import time
from collections.abc import Callable

PATIENCE_S = 120  # only ever waited for in full by a test that fails
_POLL_S = 0.05


def until(holds: Callable[[], bool]) -> None:
    """Ask again until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(_POLL_S)
