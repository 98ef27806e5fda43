"""Beyond one process: one server, whole replicas, fronts and engines, on the same cores.

Each runs alone, because ports of Ray's ingress are fixed; the lone server is measured before and
after the others, which tells how much the machine varied.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench import models
from tests.bench.client import Load, closed_loop
from tests.bench.lineup import SERVICE
from tests.bench.photos import photos
from tests.bench.record import Record, table
from tests.bench.startup import alone
from tests.support.cluster import Cluster, running_cluster
from tests.support.processes import family
from tests.support.redis_server import running_redis
from tests.support.server import Server, running_command

CLIENTS = (1, 8, 32)
_SECONDS = 10.0
_SETTLING_S = 3.0  # HAProxy closes connections when it hears of another replica
_REQUEST = SERVICE.request
_HEADINGS = [
    "clients",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "failed",
    "processor ms a request, by process",
    "of the client",
]
# What a process does, by how its command line begins.
_ROLES = {
    "ray::ServeReplica:deepvit:front": "front",
    "ray::ServeReplica:deepvit:engine": "engine",
    "haproxy": "HAProxy",
    "service": "server",
}


@dataclass(frozen=True)
class Form:
    """A way to serve: one process without a `module`, or the cluster that it starts."""

    name: str
    settings: Mapping[str, object]
    module: str | None = "service.cluster"


_ALL: dict[str, object] = {"intra_op_threads": 2, "decode_threads": 2}
_HALF: dict[str, object] = {"front_cpus": 0.5, "engine_cpus": 1}
FORMS = (
    Form("one process", _ALL, module=None),
    Form("one whole replica", {"layout": "whole", "fronts": 1} | _ALL),
    Form("two whole replicas", {"layout": "whole", "fronts": 2} | _HALF),
    Form("one front, one engine", {"fronts": 1} | _ALL | _HALF),
    Form("two fronts, one engine", {"fronts": 2} | _ALL | _HALF),
    Form("one process again", _ALL, module=None),
)


def run(name: str) -> None:
    """Print and record requests a second, latency, and processor time of each kind of process."""
    measure(name, FORMS, Record("cluster", name))


def measure(name: str, forms: Sequence[Form], record: Record) -> None:
    folder = models.exported(name)
    jpegs = photos(models.manifest(folder).preprocessing.size.side)
    requests = [_REQUEST(jpeg) for jpeg in jpegs]
    for form in forms:
        rows: list[list[object]] = []
        with _running(form, folder) as (port, leader):
            closed_loop(port, requests, max(CLIENTS), _SETTLING_S)
            for clients in CLIENTS:
                before = _spent(leader)
                load = closed_loop(port, requests, clients, _SECONDS)
                spent = {role: s - before.get(role, 0.0) for role, s in _spent(leader).items()}
                figures = _figures(load, spent)
                record.add(form=form.name, clients=clients, **figures)
                rows.append([clients, *figures.values()])
        print(f"\n{form.name}\n")
        print(*table(_HEADINGS, rows), sep="\n", flush=True)


def _figures(load: Load, spent: Mapping[str, float]) -> dict[str, object]:
    each = {role: round(seconds / load.requests * 1e3, 2) for role, seconds in spent.items()}
    return {
        "per_s": round(load.per_s, 1),
        "p50_ms": load.percentile_ms(50),
        "p99_ms": load.percentile_ms(99),
        "failed": load.failed + load.refused,
        "processor_ms": each,
        "client_ms": round(load.client_s / load.requests * 1e3, 2),
    }


def _spent(leader: int) -> dict[str, float]:
    """Seconds of processor time so far of all processes, by what they do."""
    spent: defaultdict[str, float] = defaultdict(float)
    for process in family(leader):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent[_role(process.cmdline())] += times.user + times.system
    return spent


def _role(line: Sequence[str]) -> str:
    text = " ".join(line)
    return next((role for start, role in _ROLES.items() if start in text), "Ray")


@contextmanager
def _running(form: Form, folder: Path) -> Iterator[tuple[int, int]]:
    """Port, and id of the process that has started the others."""
    with alone(folder) as repository, running_redis() as redis:
        settings = {"store_url": redis.url, **form.settings}
        started: AbstractContextManager[Server | Cluster] = (
            running_command(repository, **settings)
            if form.module is None
            else running_cluster(repository, form.module, **settings)
        )
        with started as running:
            yield int(running.url.rpartition(":")[2]), running.process.pid
