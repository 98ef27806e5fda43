"""How many machines a rate of images needs: a model, from what `fronts` and `cluster` recorded.

The model is one of processor time alone. A process of Python uses one core at most, a core and a
GPU are planned to be busy for `_BUSY` of the time, and what a request costs does not depend on how
many there are. It is checked against the rates that were measured on the cores of one machine.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.bench import models
from tests.bench.record import read, table

RATES = (1_000, 10_000, 100_000, 1_000_000)  # images a second
_BUSY = 0.7
_GPU_MS = 0.15  # an image of 32 blocks at 224 px, batch 32, on an H100 (docs/benchmarks.md)
_JPEG_BYTES = 50_000  # of a photograph of 500 x 375 pixels
_KEPT_S = 60  # how long an id should stay valid


class Costs(NamedTuple):
    """Processor time of a request in milliseconds, by process."""

    front: float
    haproxy: float
    engine: float


class Needs(NamedTuple):
    cores: int
    fronts: int
    gpus: int
    network_gbit_s: float
    redis_gbit_s: float
    redis_gb: float


def needs(rate: int, costs: Costs, input_bytes: int) -> Needs:
    """For `rate` images a second, one a request, each kept in Redis for a minute."""
    busy_ms = 1000 * _BUSY
    fronts = math.ceil(rate * costs.front / busy_ms)
    gpus = math.ceil(rate * max(_GPU_MS, costs.engine) / busy_ms)  # an engine is one process
    cores = fronts + gpus + math.ceil(rate * costs.haproxy / busy_ms)
    gbit = 8e-9 * rate
    return Needs(
        cores=cores,
        fronts=fronts,
        gpus=gpus,
        network_gbit_s=round(gbit * (_JPEG_BYTES + input_bytes), 1),  # from clients, to engines
        redis_gbit_s=round(gbit * input_bytes, 1),
        redis_gb=round(1e-9 * rate * input_bytes * _KEPT_S, 1),
    )


def run() -> None:
    """Print the table for the large model, and how far the small one's rates are from the model."""
    _, fronts = read("fronts", models.LARGE)
    machine, figures = read("cluster", models.SMALL)
    if not fronts or not figures:
        raise SystemExit("nothing is recorded: run the parts `fronts` and `cluster` first")
    size = models.manifest(models.exported(models.LARGE)).preprocessing.size
    spent = next(row["processor_ms"] for row in reversed(fronts) if row["form"] == "one front")
    costs = Costs(spent["front"], spent["HAProxy"], spent["engine"])
    print(f"\nprocessor ms a request: {costs._asdict()}\n")
    rows = [[f"{rate:,}", *needs(rate, costs, size.area * 3)] for rate in RATES]
    print(*table(["images/s", *Needs._fields], rows), sep="\n")
    print("\nrequests a second of all cores, as processor time says and as measured\n")
    print(*table(["form", "said", "measured"], list(_check(machine, figures))), sep="\n")


def _check(machine: dict[str, Any], figures: list[dict[str, Any]]) -> Iterator[list[object]]:
    """Requests a second if all cores are busy, and how many there were, at the most clients."""
    most = max(figure["clients"] for figure in figures)
    for figure in figures:
        if figure["clients"] == most:
            each = sum(figure["processor_ms"].values()) + figure["client_ms"]
            said = 1000 * machine["machine"]["cores"] / each
            yield [figure["form"], round(said), round(figure["per_s"])]
