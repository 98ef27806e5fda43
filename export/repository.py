"""Writes a version to the model repository, whole or not at all.

The layout is the one NVIDIA Triton reads: config.pbtxt and labels.txt beside numbered
versions, the highest of which is served.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.manifest import Manifest, version_folders


def next_version(repository: Path, name: str) -> int:
    taken = version_folders(repository / name)
    return int(taken[-1].name) + 1 if taken else 1


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A hidden folder on the repository's file system, removed afterwards whatever happens."""
    repository.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=repository))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, repository: Path, manifest: Manifest) -> Path:
    """Move a staged version into place, so that a reader sees all of it or nothing.

    Raises `FileExistsError` if another export has published the same version in the meantime.
    """
    (staged / "manifest.json").write_text(manifest.model_dump_json(indent=1))
    staged.chmod(0o755)
    model = repository / manifest.name
    model.mkdir(exist_ok=True)
    _replace(model / "labels.txt", "".join(f"{label}\n" for label in manifest.labels))
    _replace(model / "config.pbtxt", triton_config(manifest))
    version = model / str(manifest.version)
    if version.exists():
        raise FileExistsError(f"{version} was written by another export; run this one again")
    staged.rename(version)
    return version


def triton_config(manifest: Manifest) -> str:
    """NVIDIA Triton's description of the classifier."""
    height, width = manifest.preprocessing.size
    return f"""\
name: "{manifest.name}"
platform: "onnxruntime_onnx"
max_batch_size: {manifest.max_batch_size}
input [
  {{
    name: "images"
    data_type: TYPE_UINT8
    dims: [ {height}, {width}, 3 ]
  }}
]
output [
  {{
    name: "logits"
    data_type: TYPE_FP32
    dims: [ {len(manifest.labels)} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{ }}
version_policy: {{ latest {{ num_versions: 1 }} }}
"""


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
