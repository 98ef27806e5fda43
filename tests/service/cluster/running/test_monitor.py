"""What two fronts have measured through one engine is one answer on either of them.

New settings replace what the cluster runs, so this module is the last (tests/support/schedule.py).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DEEPVIT, VIT
from tests.service.cluster.running.conftest import PATIENT
from tests.support.cluster import Cluster, running_cluster
from tests.support.metrics import samples_of
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE_S, until

CLIENTS = 8


def found_of(cluster: Cluster) -> dict[str, Any]:
    """Over a new connection, so that any front may answer."""
    answer = httpx.get(
        f"{cluster.url}/monitor?model={DEEPVIT}", timeout=PATIENCE_S
    ).raise_for_status()
    (found,) = answer.json()["models"]
    return dict(found)


@pytest.fixture(params=["fronts", "whole"])
def measuring(
    request: pytest.FixtureRequest, cluster: Cluster, repository: Path, redis: RedisServer
) -> Iterator[Cluster]:
    settings = {
        "layout": request.param,
        "fronts": 2,
        "store_url": redis.url,
        "monitor_sample": 1,
        "ray_address": cluster.ray_address,
        "port": cluster.port,
    }
    with running_cluster(repository, **settings, **PATIENT) as running:
        yield running
        running.process.kill()  # what it has started is stopped with the cluster


def test_either_front_tells_what_both_have_measured(measuring: Cluster, photo: bytes) -> None:
    posted = 0

    def post(_: int) -> None:
        httpx.post(
            f"{measuring.url}/classify?model={DEEPVIT}", files={"image": photo}, timeout=PATIENCE_S
        ).raise_for_status()

    def measured() -> dict[str, float]:
        """By replica."""
        return {
            labels["replica"]: value
            for labels, value in samples_of(measuring.url, "deepvit_monitor_samples_total")
            if (labels["model"], labels["outcome"]) == (DEEPVIT, "measured")
        }

    def both_have_measured() -> bool:
        nonlocal posted
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(post, range(2 * CLIENTS)))
        posted += 2 * CLIENTS
        until(lambda: found_of(measuring)["samples"]["waiting"] == 0)
        return all(measured().values())

    until(both_have_measured)
    by_front = measured()
    assert len(by_front) == 2
    for _ in range(4):
        found = found_of(measuring)
        samples = found["samples"]
        assert samples["measured"] == sum(by_front.values())
        assert samples["measured"] + samples["dropped"] == posted
        assert samples["failed"] == 0
        assert found["window"]["images"] == sum(min(100, one) for one in by_front.values())
    entropies = [
        value
        for labels, value in samples_of(measuring.url, "deepvit_monitor_measure")
        if (labels["model"], labels["measure"], labels["block"]) == (DEEPVIT, "entropy", "7")
    ]
    (mean,) = (one["mean"][7] for one in found["measures"] if one["measure"] == "entropy")
    assert entropies == pytest.approx([mean, mean], rel=1e-4)  # of one picture
    with measuring.client() as client:
        assert client.get("/monitor?model=none").status_code == 404
        assert VIT in {one["model"] for one in client.get("/monitor").json()["models"]}
