"""Copies of a model repository that a test may change, with further versions of its model."""

import shutil
from pathlib import Path

from models import sums
from tests.conftest import DEEPVIT


def copied(repository: Path, folder: Path) -> Path:
    """The folder, now a model repository that contains only the DeepViT."""
    shutil.copytree(repository / DEEPVIT, folder / DEEPVIT)
    return folder


def add_version(repository: Path, folder: Path, damage: bool = False) -> Path:
    """Add a version to `folder`: a copy of the highest one in `repository` with the next number.

    `damage` truncates its weights.
    """
    highest = max(int(entry.name) for entry in (repository / DEEPVIT).glob("[0-9]*"))
    staged = folder / ".staged"
    shutil.copytree(repository / DEEPVIT / str(highest), staged)
    for name in ("model.onnx", "explain.onnx", "manifest.json"):
        content = (staged / name).read_bytes()
        space = " " if name == "manifest.json" else ""
        old, new = (f'"version":{space}{number},'.encode() for number in (highest, highest + 1))
        assert old in content
        (staged / name).write_bytes(content.replace(old, new))
    sums.write(staged)
    if damage:
        with (staged / "weights.bin").open("r+b") as weights:
            weights.truncate(4096)
    return staged.rename(folder / DEEPVIT / str(highest + 1))
