"""What a process has found of one version so far: plain data, which adds up over processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from models.manifest import Manifest
from models.signals import Signals
from service.monitor.window import Sums

HISTORY = 240  # points that are kept


class Export(NamedTuple):
    """An exported version; the digest differs if it was exported anew under the same number."""

    model: str
    version: int
    digest: str


class Samples(NamedTuple):
    """What became of the images that were drawn: the sum of these four."""

    measured: int = 0
    dropped: int = 0  # there was no time for them, or their version is served no more
    failed: int = 0
    waiting: int = 0  # or being measured


class Point(NamedTuple):
    """The drift at one moment."""

    time_s: float  # since the epoch
    drift: float
    images: int  # in the window


@dataclass(frozen=True)
class Record:
    samples: Samples
    sums: Sums  # over the window
    history: tuple[Point, ...]  # oldest first

    @classmethod
    def empty(cls, manifest: Manifest) -> "Record":
        return cls(Samples(), Sums.none(len(Signals(manifest).names), len(manifest.labels)), ())

    def __add__(self, other: "Record") -> "Record":
        return Record(
            Samples(*map(sum, zip(self.samples, other.samples, strict=True))),
            self.sums + other.sums,
            tuple(sorted((*self.history, *other.history))[-HISTORY:]),
        )


Records = Mapping[Export, Record]


def added(of_processes: Iterable[Records]) -> Records:
    """The records of several processes as one."""
    whole: dict[Export, Record] = {}
    for records in of_processes:
        for export, record in records.items():
            whole[export] = whole[export] + record if export in whole else record
    return whole
