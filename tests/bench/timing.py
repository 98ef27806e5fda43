"""Times contenders in turns, so that a busy moment of the machine affects all of them."""

import statistics
import time
from collections.abc import Callable

Contender = Callable[[], object]

_TURN_S = 0.15  # minimum length of a turn; fast contenders run several times
_PAUSE_S = 0.03  # enough for threads that spin after a call to go to sleep
_MIN_ROUNDS = 3


def in_turns(contenders: dict[str, Contender], rounds: int, budget_s: float) -> dict[str, float]:
    """Median seconds of a call by contender; stops after `budget_s`, but not before 3 rounds."""
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
    """One turn of each contender; appends to `seconds`."""
    for name, run in contenders.items():
        time.sleep(_PAUSE_S)
        end = time.perf_counter() + _TURN_S
        while (started := time.perf_counter()) < end:
            run()
            seconds[name].append(time.perf_counter() - started)
