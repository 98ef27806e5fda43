"""A cluster of two nodes loses one of them under load. It takes minutes: `make test-cluster`."""

from pathlib import Path

import pytest

from tests.service.cluster.load import CLIENTS, FRONT, Load
from tests.support.cluster import running_cluster
from tests.support.nodes import HEAD, kill_second_node, two_nodes
from tests.support.processes import pids
from tests.support.redis_server import running_redis
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_what_a_lost_node_ran_runs_on_the_other(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    with (
        two_nodes(tmp_path) as address,
        running_redis("--bind", HEAD, "127.0.0.1", "--protected-mode", "no") as redis,
        running_cluster(
            repository,
            ray_address=address,
            host="0.0.0.0",
            fronts=2,
            engines=2,
            store_url=redis.url.replace("127.0.0.1", HEAD),
        ) as cluster,
    ):
        before = pids(FRONT)
        load = Load(cluster, photo)
        with load.running():
            kill_second_node()
            assert pids(FRONT) < before  # there was one on that node
            until(lambda: len(pids(FRONT)) == 2)
            load.go_on(20 * CLIENTS)
        lost = load.outcomes.total() - load.outcomes["right"]
        assert lost <= CLIENTS, load.outcomes
