"""What a long command is doing, on standard error."""

import sys
import time
from collections.abc import Callable


class Progress:
    """Prints steps, with the seconds since the start, and details below them."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, step: str) -> None:
        print(f"[{time.perf_counter() - self._start:5.1f} s] {step}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        print(f"          {text}", file=sys.stderr, flush=True)


class Throttle:
    """Passes texts on, at most one in `every_s` seconds, and drops those in between."""

    def __init__(self, say: Callable[[str], None], every_s: float) -> None:
        self._say = say
        self._every_s = every_s
        self._said = time.perf_counter()

    def __call__(self, text: str) -> None:
        if time.perf_counter() - self._said >= self._every_s:
            self._said = time.perf_counter()
            self._say(text)
