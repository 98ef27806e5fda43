"""One running cluster for all modules of this folder, because its start takes longest.

It ends before the tests beside this folder, which start others.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Cluster, running_cluster
from tests.support.redis_server import RedisServer, running_redis
from tests.support.waiting import PATIENCE_S

QUEUE = 24  # slots on each front
# What is late on a busy machine is neither lost nor refused.
PATIENT = {"store_timeout_s": PATIENCE_S, "request_timeout_s": PATIENCE_S}


@pytest.fixture(scope="package")
def redis() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture(scope="package")
def cluster(repository: Path, redis: RedisServer) -> Iterator[Cluster]:
    """Two fronts and one engine."""
    settings = {"fronts": 2, "store_url": redis.url, "max_queue_images": QUEUE}
    with (
        running_cluster(repository, **settings, **PATIENT) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_AUTH_MODE", "token")  # without which nobody joins its Ray
        yield running


@pytest.fixture(scope="package")
def clustered(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.client() as session:
        yield session
