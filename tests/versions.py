"""A model repository that a test may change, and more versions in it without another export."""

import shutil
from pathlib import Path

from tests.conftest import DEEPVIT


def copied(repository: Path, folder: Path) -> Path:
    shutil.copytree(repository / DEEPVIT, folder / DEEPVIT)
    return folder


def add_version(repository: Path, folder: Path, damage: bool = False) -> None:
    """Version 2 is the exporter's own second run; here the first one under a new number."""
    staged = folder / ".staged"
    shutil.copytree(repository / DEEPVIT / "1", staged)
    for name in ("model.onnx", "explain.onnx", "manifest.json"):
        content = (staged / name).read_bytes()
        old, new = b'"version":1,', b'"version":2,'
        if name == "manifest.json":
            old, new = b'"version": 1,', b'"version": 2,'
        assert old in content
        (staged / name).write_bytes(content.replace(old, new))
    if damage:
        with (staged / "weights.bin").open("r+b") as weights:
            weights.truncate(4096)
    staged.rename(folder / DEEPVIT / "2")
