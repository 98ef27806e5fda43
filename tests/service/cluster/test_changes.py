"""Under load, new versions, new settings and other numbers of replicas fail no request.

It takes minutes: `make test-cluster`.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import DEEPVIT
from tests.service.cluster.load import CLIENTS, FRONT, Load
from tests.support.cluster import Cluster, running_cluster
from tests.support.processes import pids
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT
from tests.support.versions import add_version, copied
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def version(cluster: Cluster, photo: bytes) -> int:
    answer = httpx.post(f"{cluster.url}/classify?model={DEEPVIT}", files={"image": photo})
    found: int = answer.raise_for_status().json()["version"]
    return found


def test_a_new_version_replaces_the_old_one(
    repository: Path, redis: RedisServer, photo: bytes, tmp_path: Path
) -> None:
    copied(repository, tmp_path)
    settings = {"fronts": 2, "store_url": redis.url, "repository_poll_s": 0.5}
    with running_cluster(tmp_path, **settings) as cluster:
        load = Load(cluster, photo)
        with load.running():
            add_version(tmp_path, tmp_path)
            until(lambda: {version(cluster, photo) for _ in range(8)} == {2})
            load.go_on(10 * CLIENTS)
        assert load.outcomes.keys() == {"right"}


def test_new_settings_replace_one_replica_after_the_other(
    repository: Path, redis: RedisServer, photo: bytes
) -> None:
    with running_cluster(repository, fronts=2, store_url=redis.url) as cluster:
        load = Load(cluster, photo)
        before = pids(FRONT)
        with load.running():
            again = subprocess.Popen(
                [sys.executable, "-m", "service.cluster",
                 "--ray-address", cluster.ray_address, "--port", str(cluster.port),
                 "--model-repository", str(repository), "--max-batch-size", "8"],
                cwd=ROOT,
                env=os.environ
                | {"DEEPVIT_STORE_URL": redis.url, "DEEPVIT_FRONT_CPUS": "0.1",
                   "DEEPVIT_ENGINE_CPUS": "0.1", "RAY_AUTH_MODE": "token"},
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            until(lambda: len(pids(FRONT) - before) == 2 and not pids(FRONT) & before)
            load.go_on(10 * CLIENTS)
        again.kill()
        again.wait()
        assert load.outcomes.keys() == {"right"}


def test_fronts_follow_the_load(repository: Path, redis: RedisServer, photo: bytes) -> None:
    settings = {
        "fronts": 1,
        "max_fronts": 3,
        "requests_per_front": 2,
        "scale_up_delay_s": 1,
        "scale_down_delay_s": 1,
        "store_url": redis.url,
    }
    with running_cluster(repository, **settings) as cluster:
        load = Load(cluster, photo)
        with load.running():
            until(lambda: len(pids(FRONT)) > 1)
            load.go_on(20 * CLIENTS)
        assert load.outcomes.keys() == {"right"}
        until(lambda: len(pids(FRONT)) == 1)
        assert version(cluster, photo) == 1
