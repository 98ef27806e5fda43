"""The bundled models, exported once, a server that serves them, and a Redis."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from export.__main__ import main
from models.config import ARCHITECTURES
from tests.support.networks import random_network
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import ROOT, Server, running_server

DEEPVIT = "deepvit16-cifar10"
VIT = "vit16-cifar10"
TINY = "tiny"


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config) -> Path:
    """A model repository with both bundled checkpoints, one in fp16 too, to be read only.

    Kept in pytest's cache for as long as nothing that makes it changes.
    """
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"model_repository-{_sources()[:16]}")
    for name, precision in ((DEEPVIT, "fp16"), (VIT, "fp32")):
        weights = ROOT / "models" / "zoo" / f"{name}.safetensors"
        if not (folder / name / "1").exists():
            options = ["--name", name, "--precision", precision, "--output", str(folder)]
            assert main([str(weights), *options]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_repository(pytestconfig: pytest.Config) -> Path:
    """One model, `TINY`, of 23 thousand random weights: what is measured is the service."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"tiny_repository-{_sources()[:16]}")
    if not (folder / TINY / "1").exists():
        network = random_network(ARCHITECTURES["deepvit_test"].config)
        weights = folder / "tiny.pth"
        torch.save({"state_dict": network.state_dict(), "arch": "deepvit_test"}, weights)
        assert main([str(weights), "--name", TINY, "--output", str(folder)]) == 0
    return folder


def _sources() -> str:
    """A digest of all that an exported model comes from; reports only read it."""
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes())
    for room in ("export", "models"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".safetensors") and path.parent.name != "report":
                digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    with running_server(repository) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as session:
        yield session


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """An empty Redis of the test's own."""
    with running_redis() as running:
        yield running


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A real photograph, of a cat."""
    return (ROOT / "tests" / "data" / "cat.jpg").read_bytes()
