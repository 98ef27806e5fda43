"""What Python itself would print on standard error, as lines of the log: warnings, and exceptions
that nothing catches.
"""

import logging
import sys
import threading
import time
import warnings
from collections import Counter
from types import TracebackType
from typing import TextIO

_logger = logging.getLogger("python")
_REPEAT_S = 600
_MAX_TEXT = 500


class _Warnings:
    """Logs a warning from one line of code once in ten minutes, whatever its text says."""

    def __init__(self) -> None:
        self._logged: dict[tuple[type[Warning], str, int], float] = {}  # when, by line of code
        self._passed_over: Counter[tuple[type[Warning], str, int]] = Counter()

    def show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG002  # as `warnings` calls it
        line: str | None = None,  # noqa: ARG002
    ) -> None:
        place = (category, filename, lineno)
        now = time.monotonic()
        if now - self._logged.get(place, -_REPEAT_S) < _REPEAT_S:
            self._passed_over[place] += 1
            return
        self._logged[place] = now
        _logger.warning(
            "%s: %s",
            category.__name__,
            str(message)[:_MAX_TEXT],
            extra={"place": f"{filename}:{lineno}", "repeats": self._passed_over.pop(place, 0)},
        )


def log_them() -> None:
    """From now on, in the whole process."""
    # Python would remember the text of each warning that it shows by default, and texts that quote
    # a request are new each time. What is always shown is not remembered.
    warnings.simplefilter("always", append=True)
    warnings.showwarning = _Warnings().show
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    sys.unraisablehook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )


def _log_uncaught(
    kind: type[BaseException], exc: BaseException | None, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    _logger.critical("uncaught exception", exc_info=(kind, exc or kind(), traceback))
