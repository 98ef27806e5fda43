"""A checkout in which the pages' commands can be run without touching the real one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.config import ARCHITECTURES
from service.inference.cpus import available_cpus
from tests.conftest import BUNDLED
from tests.support.networks import random_network
from tests.support.server import LARGEST_BATCH, ROOT, Server, running_server

_LINKED = ("Makefile", "export", "models", "service", "tests")
_CONFIG = ARCHITECTURES["deepvit_test"].config


@pytest.fixture(scope="session")
def repository() -> Path:
    """The models that the pages show."""
    return ROOT / "model_repository"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    settings = {"intra_op_threads": available_cpus(), "max_batch_size": LARGEST_BATCH}
    with running_server(repository, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def checkout(repository: Path, photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has who follows the pages: the project, a checkpoint, labels and photographs."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "model_repository").mkdir()
    for name in BUNDLED:
        (folder / "model_repository" / name).symlink_to(repository / name)
    labels = [f"kind {index}" for index in range(_CONFIG.num_classes)]
    (folder / "labels.txt").write_text("\n".join(labels))
    _save_collapsed_checkpoint(folder / "model_best.pth.tar")
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_bytes(photo)
    shutil.copy(ROOT / "service" / "web" / "samples" / "boat.jpg", folder / "photos")
    for purpose in ("train", "test"):
        for number in range(8):
            for kind in ("cat", "boat"):
                pictures = folder / "pictures" / purpose / kind
                pictures.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / "photos" / f"{kind}.jpg", pictures / f"{number}.jpg")
    return folder


def _save_collapsed_checkpoint(path: Path) -> None:
    """An official container of a network whose later blocks attend uniformly."""
    weights = random_network(_CONFIG).state_dict()
    for block in range(1, _CONFIG.depth):
        for name in ("weight", "bias"):  # no query tells keys apart
            weights[f"blocks.{block}.attn.qkv.{name}"][: _CONFIG.embed_dim] = 0
    torch.save({"state_dict": weights, "arch": "deepvit_test"}, path)


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a user's shell; servers take a free port."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEEPVIT_")}
    return kept | {"DEEPVIT_PORT": "0", "VENV": sys.prefix}


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """A command of a shell, which must succeed; what it printed."""
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
