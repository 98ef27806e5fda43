"""Exported models to measure: the small one, and architectures with random weights.

Speed does not depend on the values of weights. Exporting takes minutes and needs PyTorch, so
exports are cached in a folder, which the environment variable BENCH_CACHE names.
"""

import os
import shutil
from pathlib import Path

from models.config import ARCHITECTURES
from models.manifest import Manifest
from tests.support import small
from tests.support.server import ROOT

SMALL = "deepvit16-cifar10"
BUNDLED = "deepvit16-photos"
TEST_SIZE = "deepvit_test"  # so small that the service itself is measured
LARGE = "deepvit_patch16_224_re_attn_32b"
TUNED = "deepvit_S"
CACHE = Path(os.environ.get("BENCH_CACHE", ROOT / ".bench_models"))
PHOTOS = ROOT / "service" / "web" / "samples"
_REPOSITORIES = (small.REPOSITORY, ROOT / "model_repository", CACHE)


def exported(name: str, precision: str = "fp32") -> Path:
    """Folder of the newest version of a model or architecture, which is exported if needed."""
    file = "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"
    for repository in _REPOSITORIES:
        if found := [folder for folder in versions(repository / name) if (folder / file).exists()]:
            return found[-1]
    _export(name, precision if precision == "fp16" else "int8")
    return versions(CACHE / name)[-1]


def calibrated(name: str, pictures: Path) -> Path:
    """A trained model exported anew, with int8 whose ranges are those of the pictures."""
    repository = CACHE / "calibrated"
    shutil.rmtree(repository / name, ignore_errors=True)
    _export(name, "int8", pictures, repository)
    return versions(repository / name)[-1]


def versions(folder: Path) -> list[Path]:
    """Version folders of one model, the newest last."""
    return sorted(folder.glob("[0-9]*"), key=lambda version: int(version.name))


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_text())


def checkpoint(name: str) -> Path:
    """Path of a trained checkpoint, or of the one that is made for an architecture."""
    for trained in (small.weights(name), ROOT / "models" / "zoo" / f"{name}.safetensors"):
        if trained.exists():
            return trained
    return CACHE / f"{name}.pth"


def _export(
    name: str, precision: str, pictures: Path = PHOTOS, repository: Path | None = None
) -> None:
    import torch

    from export.__main__ import main
    from tests.support.networks import random_network, settled

    CACHE.mkdir(exist_ok=True)
    weights = checkpoint(name)
    if not weights.exists():
        network = settled(random_network(ARCHITECTURES[name].config))
        torch.save({"state_dict": network.state_dict(), "arch": name}, weights)
    # Any pictures will do where only the speed of int8 matters, not its answers.
    rounded = ["--precision", precision, "--images", str(pictures), "--limit", "2000", "--force"]
    if main([str(weights), "--name", name, "--output", str(repository or CACHE), *rounded]):
        raise SystemExit(f"{name} cannot be exported")
