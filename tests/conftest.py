"""What all tests share: exported models, a server that serves them, a Redis and a photograph.

Tests also run in several processes (pytest-xdist): each has a server of its own, and all of them
read the same exported models.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.inference.cpus import available_cpus
from tests.support.exports import (
    export_bundled,
    export_format,
    export_tiny,
    share_operator_table,
    sources_digest,
)
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import ROOT, Server, running_server

DEEPVIT = "deepvit16-cifar10"
VIT = "vit16-cifar10"
TINY = "tiny"

# Modules that take longest. They start first, so that no process is left alone with one at the end.
_FIRST = (
    "tests/service/test_endurance.py",
    "tests/docs/test_examples.py",
    "tests/export/test_bundled.py",
    "tests/explorer/test_accessibility.py",
    "tests/export/test_quantize.py",
    "tests/service/native/test_similarity.py",
    "tests/export/test_formats.py",
    "tests/export/report/test_command.py",
    "tests/export/test_reuse.py",
    "tests/export/test_export.py",
    "tests/service/test_fuzz.py",
)
# What traces networks: in one process, which imports the exporter and traces measures once.
_EXPORTING = ("tests/export/", "tests/docs/test_examples.py", "tests/service/test_reuse.py")


def pytest_configure(config: pytest.Config) -> None:
    """Leave PyTorch one thread in each of several processes; hand modules out in our order."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_xdist_auto_num_workers() -> int:
    """More processes than CPUs, because many tests wait for a server."""
    return available_cpus() + (available_cpus() + 1) // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules stay whole, and so do those that export; the longest come first."""
    order = {name: index for index, name in enumerate(_FIRST)}
    modules = {item: item.nodeid.split("::")[0] for item in items}
    items.sort(key=lambda item: order.get(modules[item], len(order)))
    for item in items:
        exporting = modules[item].startswith(_EXPORTING)
        item.add_marker(pytest.mark.xdist_group("exporting" if exporting else modules[item]))


def pytest_collection_finish() -> None:
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
    """A model repository with the bundled models as they are kept in Git, to be read only."""
    folder = tmp_path_factory.mktemp("model_repository")
    for name in (DEEPVIT, VIT):
        shutil.copytree(ROOT / "model_repository" / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def fresh_repository(pytestconfig: pytest.Config) -> Path:
    """The bundled checkpoints exported anew, one in fp16 too, to be read only.

    Kept in pytest's cache until their sources change.
    """
    folder = _cached(pytestconfig, "model_repository")
    export_bundled(folder, {DEEPVIT: "fp16", VIT: "fp32"})
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


def _cached(config: pytest.Config, name: str) -> Path:
    assert config.cache is not None
    return config.cache.mkdir(f"{name}-{sources_digest()[:16]}")


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A server with the default settings; its models may not be unloaded."""
    with running_server(repository, intra_op_threads=available_cpus()) as running:
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
