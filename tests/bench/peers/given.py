"""What the benchmark gives a peer that it starts, through one environment variable.

Of the standard library alone, because some peers run in environments of their own.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_VARIABLE = "BENCH_PEER"


@dataclass(frozen=True)
class Setup:
    """One way to set a server up: what its own documentation says to try."""

    workers: int = 1  # processes or instances that run the model
    threads: int = 1  # of one inference
    spin: bool = True  # whether ONNX Runtime's threads spin between inferences, its default
    max_batch_size: int = 1
    wait_ms: float | None = 0  # for a batch to fill; None if the server finds out itself
    decoders: int = 0  # processes that only decode; without them, the workers do

    def __str__(self) -> str:
        parts = [_counted(self.workers, "worker"), _counted(self.threads, "thread")]
        if self.threads > 1 and not self.spin:
            parts.append("no spinning")
        if self.max_batch_size > 1:
            parts.append(f"batches of {self.max_batch_size}")
            if self.wait_ms is not None:
                parts.append(f"a wait of {self.wait_ms:g} ms")
        if self.decoders:
            parts.append(f"{_counted(self.decoders, 'process')} to decode")
        return ", ".join(parts)


def _counted(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural * (number != 1)}"


@dataclass(frozen=True)
class Given:
    """A version of a model to serve, where, and how."""

    folder: Path  # a version in a model repository
    port: int
    place: Path  # an empty folder for files of the server's own
    setup: Setup
    kernels: Path | None  # a library of operators to register, or none

    def environment(self) -> dict[str, str]:
        return {_VARIABLE: json.dumps(asdict(self), default=str)}


def given() -> Given:
    """What this process was given."""
    facts: dict[str, Any] = json.loads(os.environ[_VARIABLE])
    kernels = facts["kernels"]
    return Given(
        Path(facts["folder"]),
        facts["port"],
        Path(facts["place"]),
        Setup(**facts["setup"]),
        Path(kernels) if kernels else None,
    )
