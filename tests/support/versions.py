"""A model repository that a test may change, and more versions in it without another export."""

import shutil
from pathlib import Path

from tests.conftest import DEEPVIT


def copied(repository: Path, folder: Path) -> Path:
    shutil.copytree(repository / DEEPVIT, folder / DEEPVIT)
    return folder


def add_version(repository: Path, folder: Path, damage: bool = False) -> Path:
    """The next version is another run of the exporter; here the highest under a new number."""
    highest = max(int(entry.name) for entry in (repository / DEEPVIT).glob("[0-9]*"))
    staged = folder / ".staged"
    shutil.copytree(repository / DEEPVIT / str(highest), staged)
    for name in ("model.onnx", "explain.onnx", "manifest.json"):
        content = (staged / name).read_bytes()
        space = " " if name == "manifest.json" else ""
        old, new = (f'"version":{space}{number},'.encode() for number in (highest, highest + 1))
        assert old in content
        (staged / name).write_bytes(content.replace(old, new))
    if damage:
        with (staged / "weights.bin").open("r+b") as weights:
            weights.truncate(4096)
    return staged.rename(folder / DEEPVIT / str(highest + 1))
