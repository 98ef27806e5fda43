"""Tests that need Ray are skipped where it is not installed."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session", autouse=True)
def ray_is_installed() -> None:
    # It is not imported here: its own warnings would be errors.
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed, which make test-cluster does")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running
