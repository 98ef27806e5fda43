"""Model repositories for tests: exported once, by one process at a time, and then only read."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from export.__main__ import main
from models.config import ARCHITECTURES
from tests.support.networks import random_network
from tests.support.server import ROOT


def export_bundled(folder: Path, precisions: dict[str, str]) -> None:
    """Export bundled checkpoints by name, each in a precision beside fp32."""
    names = sorted(precisions)
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        names.reverse()  # two processes export one model each
    for name in names:
        weights = ROOT / "models" / "zoo" / f"{name}.safetensors"
        with _locked(folder, name):
            _export(weights, name, folder, "--precision", precisions[name])


def export_tiny(folder: Path, name: str) -> None:
    """Export a model of 23 thousand random weights."""
    weights = folder / "tiny.pth"
    with _locked(folder, name):
        if not weights.exists():
            network = random_network(ARCHITECTURES["deepvit_test"].config)
            torch.save({"state_dict": network.state_dict(), "arch": "deepvit_test"}, weights)
        _export(weights, name, folder)


def sources_digest() -> str:
    """A digest of everything that determines an exported model. Reports only read models."""
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes())
    for room in ("export", "models"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".safetensors") and path.parent.name != "report":
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _export(weights: Path, name: str, folder: Path, *options: str) -> None:
    """Unless there is an exported version, which appears only when it is complete."""
    if not (folder / name / "1").exists():
        assert main([str(weights), "--name", name, "--output", str(folder), *options]) == 0


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process exports this model; the lock ends with the process."""
    with folder.with_name(f"{folder.name}.{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
