"""Writes a version to the model repository, whole or not at all.

The layout is the one NVIDIA Triton reads: config.pbtxt and labels.txt beside numbered
versions, the highest of which is served.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models import sums
from models.manifest import Manifest, version_folders

_STAGING = ".staging-"


def next_version(repository: Path, name: str) -> int:
    taken = version_folders(repository / name)
    return int(taken[-1].name) + 1 if taken else 1


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A hidden folder on the repository's file system, removed afterwards whatever happens.

    It is locked while it is in use, so that what a killed export has left can be told and removed.
    """
    repository.mkdir(parents=True, exist_ok=True)
    for left in repository.glob(f"{_STAGING}*"):
        _remove_if_left(left)
    folder = repository / f"{_STAGING}{secrets.token_hex(8)}"
    try:  # from before it is made: a signal may come between any two lines
        folder.mkdir(mode=0o700)
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, repository: Path, manifest: Manifest) -> Path:
    """Move a staged version into place, so that a reader sees all of it or nothing.

    Raises `FileExistsError` if another export has published the same version in the meantime;
    then nothing is changed.
    """
    text = manifest.model_dump_json(indent=1)
    (staged / "manifest.json").write_text(text, encoding="utf-8")
    sums.write(staged)  # the last file, so that it has the hashes of all others
    staged.chmod(0o755)
    model = repository / manifest.name
    model.mkdir(exist_ok=True)
    version = model / str(manifest.version)
    with _locked(model):
        if version.exists():
            raise FileExistsError(f"{version} was written by another export; run this one again")
        _replace(model / "labels.txt", "".join(f"{label}\n" for label in manifest.labels))
        _replace(model / "config.pbtxt", triton_config(manifest))
        staged.rename(version)
    return version


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """A lock that other exports respect, and that ends with this process whatever happens.

    Raises `BlockingIOError` if another process has it and `wait` is false.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    """Remove a staging folder unless an export that is running has it."""
    try:
        with _locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, or gone already
        pass


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
    format: FORMAT_NHWC
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
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
