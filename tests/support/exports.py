"""Model repositories for tests: exported once, by one process at a time, and then only read.

PyTorch is imported only where something has to be exported.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from models.config import ARCHITECTURES
from tests.support import crops
from tests.support.server import ROOT
from tests.support.unusual import UNUSUAL, config_of, labels_of, preprocessing_of, weights_of

REUSING, DONOR = "reusing", 1  # the model of `export_reusing`, and the block that lends its map


def export_bundled(folder: Path, precisions: dict[str, str]) -> None:
    """Export bundled checkpoints by name, each in a precision beside fp32."""
    for name, precision in precisions.items():
        weights = ROOT / "models" / "zoo" / f"{name}.safetensors"
        with _locked(folder, name):
            normal = weights.with_suffix(".reference.json")
            _export(weights, name, folder, "--precision", precision, "--reference", str(normal))


def export_tiny(folder: Path, name: str) -> None:
    """Export a model of 23 thousand random weights."""
    weights = folder / "tiny.safetensors"
    with _locked(folder, name):
        if not weights.exists():
            from tests.support.networks import save_random

            save_random(ARCHITECTURES["deepvit_test"].config, weights)
        _export(weights, name, folder)


def export_format(folder: Path, name: str) -> Path:
    """Export a checkpoint of another code base; a repository of this model alone."""
    from tests.support.formats import flags_of, written

    repository, source = folder / name, folder / f"{name}.checkpoint"
    repository.mkdir(exist_ok=True)
    with _locked(repository, name):
        source.mkdir(exist_ok=True)
        path = written(source, name)
        _export(path, name, repository, "--max-batch-size", "2", *flags_of(source, name))
    return repository


def export_unusual(folder: Path) -> None:
    """Export the networks of tests/support/unusual.py into one repository."""
    for name in UNUSUAL:
        weights = weights_of(folder, name)
        with _locked(folder, name):
            if not weights.exists():
                _save_unusual(name, weights)
            _export(weights, name, folder, "--max-batch-size", "2")


def export_reusing(folder: Path) -> None:
    """Export four blocks, the last three of which mix their heads and share one softmax map.

    They have not collapsed: it is forced, and measured on four of six crops of photographs.
    """
    weights, images = folder / f"{REUSING}.safetensors", folder.with_name(f"{folder.name}.images")
    forced = ("--reuse-attention", str(DONOR), "--force", "--images", str(images), "--limit", "4")
    with _locked(folder, REUSING):
        if not weights.exists():
            from tests.support.networks import save_random

            crops.save(images, crops.crops(6, seed=1))
            blocks = {"depth": 4, "reatten_blocks": (1, 2, 3)}
            save_random(ARCHITECTURES["deepvit_test"].config.model_copy(update=blocks), weights)
        _export(weights, REUSING, folder, *forced)


def share_operator_table() -> None:
    """Let all exports of a process use one table of operators, which takes a second to make."""
    from torch.onnx._internal.exporter import _registration

    registry = _registration.ONNXRegistry
    setattr(registry, "from_torchlib", staticmethod(cache(registry.from_torchlib)))  # noqa: B010


def sources_digest() -> str:
    """A digest of everything that determines an exported model. Reports only read models."""
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes())
    for room in ("export", "models", "tests/models/formats"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".npz", ".safetensors") and path.parent.name != "report":
                digest.update(path.read_bytes())
    for module in ("crops", "exports", "networks", "unusual"):
        digest.update((ROOT / "tests" / "support" / f"{module}.py").read_bytes())
    return digest.hexdigest()


def _save_unusual(name: str, path: Path) -> None:
    from models import checkpoint
    from tests.support.networks import random_network, settled

    config = config_of(name)
    made = checkpoint.Checkpoint(
        config=config,
        weights=settled(random_network(config)).state_dict(),
        preprocessing=preprocessing_of(name),
        sha256="",
        labels=labels_of(name),
    )
    checkpoint.save(path, made)


def _export(weights: Path, name: str, folder: Path, *options: str) -> None:
    """Unless there is an exported version, which appears only when it is complete."""
    if not (folder / name / "1").exists():
        from export.__main__ import main

        assert main([str(weights), "--name", name, "--output", str(folder), *options]) == 0


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process exports this model; the lock ends with the process."""
    with folder.with_name(f"{folder.name}.{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
