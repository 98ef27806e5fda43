"""Under load, what dies is replaced, and no answer is wrong: `make test-cluster`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.cluster.load import CLIENTS, ENGINE, FRONT, Load
from tests.support.cluster import Cluster, running_cluster
from tests.support.processes import pids
from tests.support.redis_server import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.slow

CONTROLLER = "ray::ServeController"


@pytest.fixture(scope="module")
def cluster(repository: Path, redis: RedisServer) -> Iterator[Cluster]:
    settings = {"fronts": 2, "engines": 1, "store_url": redis.url}
    with running_cluster(repository, **settings) as running:
        yield running


def kill(name: str) -> None:
    """One process of this name, as if its machine had gone; another takes its place."""
    before = pids(name)
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(pids(name) - {killed}) == len(before))


def test_an_engine_is_replaced_and_no_request_fails(cluster: Cluster, photo: bytes) -> None:
    load = Load(cluster, photo)
    with load.running():
        kill(ENGINE)
        load.go_on(10 * CLIENTS)
    assert load.outcomes.keys() == {"right"}


def test_a_front_is_replaced_and_what_it_held_is_lost(cluster: Cluster, photo: bytes) -> None:
    load = Load(cluster, photo)
    with load.running():
        kill(FRONT)
        load.go_on(10 * CLIENTS)
    lost = load.outcomes.total() - load.outcomes["right"]
    assert not [outcome for outcome in load.outcomes if outcome.startswith("wrong")]
    assert lost <= CLIENTS, load.outcomes


def test_requests_are_answered_without_the_controller(cluster: Cluster, photo: bytes) -> None:
    load = Load(cluster, photo)
    with load.running():
        kill(CONTROLLER)
        load.go_on(10 * CLIENTS)
    assert load.outcomes.keys() == {"right"}


def test_classifying_goes_on_without_redis(
    cluster: Cluster, redis: RedisServer, photo: bytes
) -> None:
    load = Load(cluster, photo)
    with load.running():
        redis.kill()
        load.go_on(5 * CLIENTS)
        redis.start()
        load.go_on(5 * CLIENTS)
    assert load.outcomes.keys() == {"right"}


def test_the_books_balance_over_what_lives(cluster: Cluster) -> None:
    for whose in ("deepvit", "deepvit_engine"):
        images = cluster.images(whose)
        done = sum(images[fate] for fate in ("answered", "failed", "cancelled", "expired"))
        assert images["accepted"] == done > 0
