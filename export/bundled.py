"""`python -m export.bundled CHECKPOINTS REPOSITORY`: exports the checkpoints of a folder anew.

What is normal of a model is in a file beside its checkpoint; `--reference IMAGES` measures it anew.
The exported folders of bundled models are kept in Git, so that serving them needs no PyTorch. A
folder is replaced only where a fresh export differs in more than its date, versions and parity
figures.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from export.__main__ import main as export
from models.manifest import Manifest

_TOLD = 5  # differences that are told
_GRAPHS = ("model.onnx", "explain.onnx")
# Largest difference of weights, relative to the largest of their tensor: norms are folded with
# linear algebra, which rounds differently on different processors.
_TOLERANCE = 1e-6
# Entries of the manifest that tell when and where a model was exported
_CIRCUMSTANCES = ("exported_at", "versions", "parity")


def main() -> int:
    """Exit status 0, or that of the first export that failed."""
    parser = argparse.ArgumentParser(prog="python -m export.bundled", description=__doc__)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--reference", type=Path, metavar="IMAGES", help="a folder of images")
    options = parser.parse_args()
    for checkpoint in sorted(options.checkpoints.glob("*.safetensors")):
        name = checkpoint.stem
        kept = options.repository / name
        normal = checkpoint.with_suffix(".reference.json")
        reference = options.reference or (normal if normal.exists() else None)
        more = [] if reference is None else ["--reference", str(reference)]
        with TemporaryDirectory() as folder:
            fresh = Path(folder, name)
            if status := export([str(checkpoint), "--name", name, "--output", folder, *more]):
                return status
            if options.reference:
                _write_reference(fresh, normal)
            found = list(differences(kept, fresh))
            if found:
                shutil.rmtree(kept / "1", ignore_errors=True)
                shutil.copytree(fresh, kept, dirs_exist_ok=True)
        others = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        said = f"renewed: {'; '.join(found[:_TOLD])}{others}" if found else "nothing changed"
        print(f"{name}: {said}")
    return 0


def _write_reference(exported: Path, file: Path) -> None:
    manifest = Manifest.read((exported / "1" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest.reference is not None
    file.write_text(manifest.reference.model_dump_json() + "\n", encoding="utf-8")


def differences(kept: Path, fresh: Path) -> Iterator[str]:
    """How the first version of a model's folder differs from that of another, in words."""
    if not (kept / "1").exists():
        yield "not exported before"
        return
    for name in ("config.pbtxt", "labels.txt"):
        if (kept / name).read_text(encoding="utf-8") != (fresh / name).read_text(encoding="utf-8"):
            yield f"another {name}"
    before, after = (
        json.loads((folder / "1" / "manifest.json").read_text(encoding="utf-8"))
        for folder in (kept, fresh)
    )
    for key in sorted({*before, *after}.difference(_CIRCUMSTANCES)):
        if not _alike(before.get(key), after.get(key)):
            yield f"another {key} in the manifest"
    for name in _GRAPHS:
        yield from _graph_differences(*(onnx.load(folder / "1" / name) for folder in (kept, fresh)))


def _graph_differences(kept: onnx.ModelProto, fresh: onnx.ModelProto) -> Iterator[str]:
    for part in ("input", "output", "node"):
        if [*getattr(kept.graph, part)] != [*getattr(fresh.graph, part)]:
            yield f"another {part} in a graph"
    if [*kept.functions] != [*fresh.functions]:
        yield "another function"
    before, after = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (kept, fresh)
    )
    if before.keys() != after.keys():
        yield "other weights"
        return
    for name in before:
        if not _close(before[name], after[name]):
            yield f"another {name}"


def _alike(before: Any, after: Any) -> bool:
    """Equal but for the rounding of numbers."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_alike(before[k], after[k]) for k in before)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_alike, before, after))
    if isinstance(before, float) and isinstance(after, float):
        return abs(before - after) <= _TOLERANCE * max(1, abs(before))
    return bool(before == after)


def _close(before: np.ndarray, after: np.ndarray) -> bool:
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if before.size == 0 or before.dtype.kind != "f":
        return np.array_equal(before, after)
    return bool(np.abs(before - after).max() <= _TOLERANCE * np.abs(before).max())


if __name__ == "__main__":
    sys.exit(main())
