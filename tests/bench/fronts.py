"""How many requests a front can pass to a GPU: a cluster whose engine takes as long as an H100.

Its engine sleeps for the measured time of a batch, so it takes no processor time but for its queue.
"""

from tests.bench.cluster import Form, measure
from tests.bench.record import Record

_FAST = "tests.bench.fast_engine"

FORMS = (
    Form("one front", {"fronts": 1}, _FAST),
    Form("two fronts", {"fronts": 2}, _FAST),
)


def run(name: str) -> None:
    """Print and record what `cluster` does, of fronts before a fast engine."""
    measure(name, FORMS, Record("fronts", name))
