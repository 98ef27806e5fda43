"""How far a run is: one line that renews itself on a terminal, or a line now and then in a log."""

import sys
import time
from collections import Counter
from collections.abc import Iterable

from service.bulk.columns import Row
from service.bulk.seen import Seen

_TERMINAL_S, _LOG_S = 0.5, 30
_ERASED = "\r\x1b[K"


class Progress:
    """Counts rows. `files` is how many there are, once somebody has counted them."""

    def __init__(self) -> None:
        self.files: int | None = None
        self.before = 0  # done by earlier runs
        self.done = 0  # by this one
        self.errors: Counter[str] = Counter()  # of all runs
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def go_on_after(self, done: Iterable[tuple[str, str | None]], seen: Seen) -> None:
        """Count what earlier runs have done, paths with errors; from now on they are seen."""
        for path, error in done:
            seen.add(path)
            self.before += 1
            self._count(error)
        if self.before:
            self.say(f"going on after {self.before:,} files")

    def add(self, row: Row) -> None:
        self.done += 1
        self._count(row.get("error"))
        self._show_now_and_then()

    def add_part(self, files: int, error: str | None) -> None:
        """So many files with the same error, or with none."""
        self.done += files
        if error:
            self.errors[error] += files
        self._show_now_and_then()

    def start(self) -> None:
        """The clock, once the model is loaded."""
        self._started = self._shown = time.monotonic()

    def show(self) -> None:
        self._shown = time.monotonic()
        self._print(str(self), end="" if self._terminal else "\n")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._print(text, end="\n")

    def __str__(self) -> str:
        done, spent_s = self.before + self.done, time.monotonic() - self._started
        per_s = self.done / spent_s if spent_s else 0.0
        parts = [f"{done:,} files", f"{per_s:,.1f} a second"]
        if self.files is not None:
            left = max(0, self.files - done)
            parts[0] = f"{done:,} of {self.files:,} files"
            if per_s:
                parts.append(f"{_duration(left / per_s)} left")
        return ", ".join([*parts, f"{self.errors.total():,} unreadable"])

    @property
    def summary(self) -> str:
        """What there is now, by all runs."""
        files, unreadable = self.before + self.done, self.errors.total()
        codes = ", ".join(f"{count:,} {code}" for code, count in self.errors.most_common())
        return f"{files:,} files, {unreadable:,} of them unreadable" + (codes and f" ({codes})")

    def _show_now_and_then(self) -> None:
        if time.monotonic() - self._shown >= (_TERMINAL_S if self._terminal else _LOG_S):
            self.show()

    def _count(self, error: str | None) -> None:
        if error:
            self.errors[error] += 1

    def _print(self, text: str, end: str) -> None:
        print((_ERASED if self._terminal else "") + text, end=end, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
