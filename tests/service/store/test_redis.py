"""Replicas that share a Redis, also when it is unavailable, hangs, or is full."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.store.redis import pack
from tests.conftest import VIT
from tests.service.store.test_redis_store import REDIS_UNAVAILABLE, UNREADABLE
from tests.service.telemetry.test_observability import scrape
from tests.support.answers import results
from tests.support.memory import bounded_growth
from tests.support.pictures import png
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import ROOT, Server, running_server
from tests.support.waiting import until

SECRET = "deepvit:secret"
STORE_TIMEOUT_S = 2  # long enough not to mistake a loaded machine for an outage
RESPONSE_TIMEOUT_S = 20  # far above one classification and one store timeout


def state(client: httpx.Client) -> str:
    """The state of the store; the replica itself is ready in every state."""
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    found: str = ready.json()["store"]
    return found


def classify(client: httpx.Client, image: bytes) -> str:
    (result,) = results(client.post("/classify", files={"image": image}))
    found: str = result["id"]
    return found


def look_inside(client: httpx.Client, image_id: str) -> set[tuple[int, str | None]]:
    """Status and error code of the endpoints that take an id."""
    found = set()
    for path in ("/similarity", "/attention-maps"):
        response = client.get(path, params={"id": image_id, "model": VIT})
        found.add((response.status_code, response.json().get("code")))
        if response.status_code == 503:
            assert response.headers["retry-after"] == "1"
    return found


FOUND: set[tuple[int, str | None]] = {(200, None)}
UNKNOWN: set[tuple[int, str | None]] = {(404, "unknown-image")}
EXPIRED: set[tuple[int, str | None]] = {(404, "expired-image")}
UNAVAILABLE: set[tuple[int, str | None]] = {(503, "store-unavailable")}


@dataclass
class Replicas:
    redis: RedisServer
    servers: list[Server]
    clients: list[httpx.Client]

    def settle(self) -> None:
        for client in self.clients:
            until(lambda client=client: state(client) == "redis")  # type: ignore[misc]


@pytest.fixture(scope="module")
def started(repository: Path) -> Iterator[Replicas]:
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        servers = [
            stack.enter_context(
                running_server(repository, store_url=redis.url, store_timeout_s=STORE_TIMEOUT_S)
            )
            for _ in range(2)
        ]
        clients = [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=RESPONSE_TIMEOUT_S))
            for server in servers
        ]
        yield Replicas(redis, servers, clients)


@pytest.fixture
def replicas(started: Replicas) -> Replicas:
    """Two replicas and their Redis, which is empty and available."""
    started.settle()
    with started.redis.client() as client:
        client.flushall()
    return started


def test_replicas_can_explain_what_another_one_classified(replicas: Replicas, photo: bytes) -> None:
    one, other = replicas.clients
    image_id = classify(one, photo)
    assert look_inside(other, image_id) == FOUND
    query = {"id": image_id, "format": "npy", "head": "all"}
    assert (
        one.get("/attention-maps", params=query).content
        == other.get("/attention-maps", params=query).content
    )


def test_replicas_give_a_picture_one_id_that_follows_from_a_secret_in_redis(
    replicas: Replicas, repository: Path, photo: bytes
) -> None:
    one, other = replicas.clients
    image_id = classify(one, photo)
    assert classify(other, photo) == image_id
    with replicas.redis.client() as client:
        until(lambda: client.exists(SECRET))  # again, since this test began with an empty Redis
        secret = client.get(SECRET)
        settings = {"store_url": replicas.redis.url}
        with running_server(repository, **settings) as late, late.client() as third:
            assert classify(third, photo) == image_id
        client.flushall()
        until(lambda: client.get(SECRET) == secret)
        assert classify(one, photo) == image_id
        client.set(SECRET, b"of another replica, which was first")
        until(lambda: classify(one, photo) == classify(other, photo) != image_id)


def test_several_images_of_one_request_are_all_kept(replicas: Replicas) -> None:
    one, other = replicas.clients
    images = [png(Image.new("RGB", (32, 32), (8 * i, 0, 0))) for i in range(32)]
    answer = results(one.post("/classify", files=[("image", image) for image in images]))
    for result in answer:
        assert other.get(result["links"]["similarity"]).status_code == 200


def test_an_evicted_input_has_expired(replicas: Replicas, photo: bytes) -> None:
    image_id = classify(replicas.clients[0], photo)
    with replicas.redis.client() as client:
        assert client.delete(f"deepvit:input:{image_id}")
    assert look_inside(replicas.clients[1], image_id) == EXPIRED


def test_a_value_that_is_no_input_is_unknown(replicas: Replicas, photo: bytes) -> None:
    one, other = replicas.clients
    image_id = classify(one, photo)
    input_key, seen_key = f"deepvit:input:{image_id}", f"deepvit:seen:{image_id}"
    logged = len(replicas.servers[1].log)
    before = scrape(other)["deepvit_store_lookups_total", "unreadable"]
    with replicas.redis.client() as client:
        for value in UNREADABLE.values():
            client.set(input_key, value)
            assert look_inside(other, image_id) == UNKNOWN
            assert other.get(f"/images/{image_id}").status_code == 404
        client.delete(input_key, seen_key)
        client.rpush(input_key, "a list")
        client.rpush(seen_key, "a list")
        assert look_inside(other, image_id) == UNKNOWN
    assert state(other) == "redis"
    lookups = scrape(other)["deepvit_store_lookups_total", "unreadable"] - before
    assert lookups == 3 * len(UNREADABLE) + 2
    warned = [line for line in replicas.servers[1].log[logged:] if input_key in line]
    assert len(warned) <= 1
    assert classify(one, photo) == image_id
    assert look_inside(other, image_id) == FOUND


def test_a_huge_value_is_not_read_whole(replicas: Replicas, photo: bytes) -> None:
    image_id = classify(replicas.clients[0], photo)
    key = f"deepvit:input:{image_id}"
    with replicas.redis.client() as client:
        client.set(key, pack(np.zeros((1, 1, 3), np.uint8)))
        client.setrange(key, 500_000_000, b"\0")
        with bounded_growth(replicas.servers[1].process.pid, 300):
            assert replicas.clients[1].get(f"/images/{image_id}").status_code in (404, 503)
        client.delete(key)


def test_an_input_of_another_size_does_not_fit_the_model(replicas: Replicas, photo: bytes) -> None:
    image_id = classify(replicas.clients[0], photo)
    with replicas.redis.client() as client:
        client.set(f"deepvit:input:{image_id}", pack(np.zeros((8, 8, 3), np.uint8)))
    assert look_inside(replicas.clients[1], image_id) == {(409, "input-mismatch")}


def test_without_redis_classification_continues(replicas: Replicas, photo: bytes) -> None:
    image_id = classify(replicas.clients[0], photo)
    logged = [len(server.log) for server in replicas.servers]
    replicas.redis.kill()
    try:
        for client in replicas.clients:
            for _ in range(3):
                assert classify(client, photo) == image_id
                assert look_inside(client, image_id) == UNAVAILABLE
            assert state(client) == REDIS_UNAVAILABLE
    finally:
        replicas.redis.start()
    replicas.settle()
    one, other = replicas.clients
    assert look_inside(other, image_id) == UNKNOWN
    assert classify(one, photo) == image_id
    assert look_inside(other, image_id) == FOUND
    for server, before in zip(replicas.servers, logged, strict=True):
        away, back = [line for line in server.log[before:] if "store: " in line]
        assert f"no Redis at 127.0.0.1:{replicas.redis.port}" in away
        assert f"Redis at 127.0.0.1:{replicas.redis.port} is available again" in back


def test_a_hanging_redis_does_not_hold_up_classification(replicas: Replicas, photo: bytes) -> None:
    one, other = replicas.clients
    image_id = classify(one, photo)
    replicas.redis.freeze()
    try:
        for _ in range(20):
            assert classify(one, photo) == image_id
        assert look_inside(one, image_id) == UNAVAILABLE
        until(
            lambda: state(other) == REDIS_UNAVAILABLE
        )  # the heartbeat finds it without any request
        assert look_inside(other, image_id) == UNAVAILABLE
    finally:
        replicas.redis.thaw()
    replicas.settle()
    assert look_inside(other, image_id) == FOUND  # hanging loses no data
    again = classify(one, png(Image.new("RGB", (32, 32), "teal")))
    assert look_inside(other, again) == FOUND


def test_a_full_redis_still_answers_reads(replicas: Replicas, photo: bytes) -> None:
    one, other = replicas.clients
    image_id = classify(one, photo)
    with replicas.redis.client() as client:
        client.config_set("maxmemory", 1)
        try:
            until(lambda: state(one) == state(other) == REDIS_UNAVAILABLE)
            classify(one, png(Image.new("RGB", (32, 32), "olive")))
            assert look_inside(other, image_id) == FOUND
        finally:
            client.config_set("maxmemory", 0)


def test_a_replica_starts_before_its_redis(repository: Path, photo: bytes) -> None:
    with running_redis() as redis:
        redis.kill()
        with running_server(repository, store_url=redis.url) as server, server.client() as client:
            assert "store: no Redis at 127.0.0.1" in "".join(server.log)
            assert state(client) == REDIS_UNAVAILABLE
            image_id = classify(client, photo)
            assert look_inside(client, image_id) == UNAVAILABLE
            redis.start()
            until(lambda: state(client) == "redis")
            classify(client, photo)
            assert look_inside(client, image_id) == FOUND
            redis.freeze()
            assert server.terminate() == 0
            assert "Traceback" not in "".join(server.log)


def test_without_the_package_the_start_ends_with_one_line() -> None:
    code = """if True:
        import sys
        sys.modules["redis"] = None
        from service.__main__ import main
        sys.exit(main(["--store-url", "redis://cache"]))
    """
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stderr.startswith("service: store_url needs the package redis: pip install")
    assert len(found.stderr.splitlines()) == 1
