"""Contenders in one process, timed in turns, so that a busy moment spoils no comparison."""

import statistics
import time
from collections.abc import Callable

Contender = Callable[[], object]

_TURN_S = 0.15  # short ones are called again and again for that long
_PAUSE_S = 0.03  # threads that spin after a call have gone to sleep by then
_MIN_ROUNDS = 3


def in_turns(contenders: dict[str, Contender], rounds: int, budget_s: float) -> dict[str, float]:
    """Median seconds of one call of each; fewer rounds than asked for if they take too long."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    started = time.perf_counter()
    for done in range(rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() - started > budget_s:
            break
        one_round(contenders, seconds)
    return {name: statistics.median(values) for name, values in seconds.items()}


def one_round(contenders: dict[str, Contender], seconds: dict[str, list[float]]) -> None:
    """A turn of each, added to what is known of it."""
    for name, run in contenders.items():
        time.sleep(_PAUSE_S)
        end = time.perf_counter() + _TURN_S
        while (started := time.perf_counter()) < end:
            run()
            seconds[name].append(time.perf_counter() - started)
