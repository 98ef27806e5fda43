"""The bundled models, exported once, a server that serves them, and a Redis."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from export.__main__ import main
from tests.redis_server import RedisServer, running_redis
from tests.server import ROOT, Server, running_server

DEEPVIT = "deepvit16-cifar10"
VIT = "vit16-cifar10"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with both bundled checkpoints."""
    folder = tmp_path_factory.mktemp("model_repository")
    for name in (DEEPVIT, VIT):
        weights = ROOT / "models" / "zoo" / f"{name}.safetensors"
        assert main([str(weights), "--name", name, "--output", str(folder)]) == 0
    return folder


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
