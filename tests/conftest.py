"""What all tests share: exported models, a server that serves them, a Redis and a photograph.

Tests also run in several processes (pytest-xdist): each has a server of its own, and all of them
read the same exported models.
"""

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import small
from tests.support.exports import (
    export_bundled,
    export_format,
    export_reusing,
    export_tiny,
    export_unusual,
    share_operator_table,
    sources_digest,
)
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import ROOT, Server, running_command, running_server

pytest_plugins = ["tests.support.schedule"]

# The two small models, which are fast and real; `BUNDLED` is what users get.
DEEPVIT = "deepvit16-cifar10"
VIT = "vit16-cifar10"
TINY = "tiny"
BUNDLED = ("deepvit16-photos", "vit16-photos")


def pytest_configure() -> None:
    """Leave PyTorch one thread in each of several processes, and in those that they start.

    Tracing networks makes millions of objects: collecting garbage less often takes a tenth less.
    """
    gc.set_threshold(50_000, 20, 100)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        if "torch" in sys.modules:  # conftest.py of a folder that was named may have imported it
            sys.modules["torch"].set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported stays: tests that collect garbage, and pytest's end, need not visit it."""
    gc.freeze()
    if "torch" in sys.modules:
        share_operator_table()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was skipped and why."""
    reports = terminalreporter.getreports("skipped")
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if reasons:
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"{reasons.total()} skipped: {listed}")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the two small models as they are kept in Git, to be read only."""
    folder = tmp_path_factory.mktemp("model_repository")
    for name in (DEEPVIT, VIT):
        shutil.copytree(small.REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def fresh_repository(pytestconfig: pytest.Config) -> Path:
    """The bundled checkpoints exported anew, the first in fp16 too, to be read only.

    Kept in pytest's cache until their sources change.
    """
    folder = _cached(pytestconfig, "model_repository")
    export_bundled(folder, dict(zip(BUNDLED, ("fp16", "fp32"), strict=True)))
    return folder


@pytest.fixture(scope="session")
def tiny_repository(pytestconfig: pytest.Config) -> Path:
    """A model repository with the small model `TINY`, for tests of the service alone."""
    folder = _cached(pytestconfig, "tiny_repository")
    export_tiny(folder, TINY)
    return folder


@pytest.fixture(scope="session")
def format_repository(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """A model repository by the name of a code base (tests/models/formats), to be read only."""
    folder = _cached(pytestconfig, "formats")
    return lambda name: export_format(folder, name)


@pytest.fixture(scope="session")
def unusual_repository(pytestconfig: pytest.Config) -> Path:
    """A model repository with the networks of tests/support/unusual.py, to be read only."""
    folder = _cached(pytestconfig, "unusual")
    export_unusual(folder)
    return folder


@pytest.fixture(scope="session")
def reusing_repository(pytestconfig: pytest.Config) -> Path:
    """A model repository with `REUSING`, whose blocks share a softmax map, to be read only."""
    folder = _cached(pytestconfig, "reusing")
    export_reusing(folder)
    return folder


def _cached(config: pytest.Config, name: str) -> Path:
    assert config.cache is not None
    return config.cache.mkdir(f"{name}-{sources_digest()[:16]}")


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A server with the default settings, but for its threads; its models may not be unloaded."""
    with running_command(repository) as running:
        yield running


@pytest.fixture(scope="session")
def unusual_server(unusual_repository: Path) -> Iterator[Server]:
    """A server of the networks of tests/support/unusual.py, with gRPC; it measures all images."""
    with running_server(unusual_repository, grpc_port=0, monitor_sample=1) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as session:
        yield session


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """An empty Redis, which the test may kill."""
    with running_redis() as running:
        yield running


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A real photograph of a cat."""
    return (ROOT / "tests" / "data" / "cat.jpg").read_bytes()
