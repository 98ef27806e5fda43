"""Copies of a model repository that a test may change, with further versions of its model."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx

from models import sums
from models.manifest import METADATA_KEY
from tests.conftest import DEEPVIT


def copied(repository: Path, folder: Path) -> Path:
    """The folder, now a model repository that contains only the DeepViT."""
    shutil.copytree(repository / DEEPVIT, folder / DEEPVIT)
    return folder


def add_version(repository: Path, folder: Path, damage: bool = False, model: str = DEEPVIT) -> Path:
    """Add a version to `folder`: a copy of the highest one in `repository` with the next number.

    `damage` truncates its weights.
    """
    highest = max(int(entry.name) for entry in (repository / model).glob("[0-9]*"))
    staged = folder / ".staged"
    shutil.copytree(repository / model / str(highest), staged)
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
    return staged.rename(folder / model / str(highest + 1))


def rewrite(folder: Path, /, **changes: Any) -> None:
    """Change the manifest of a version, in its file and in its graphs, and hash all of them."""
    text = json.dumps(json.loads((folder / "manifest.json").read_text()) | changes)
    (folder / "manifest.json").write_text(text)
    for path in folder.glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False)
        for entry in graph.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = text
        path.write_bytes(graph.SerializeToString())
    sums.write(folder)
