"""Replicas that share a Redis, also when it is unavailable, hangs, or is full."""

import asyncio
import logging
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from models.arrays import Pixels
from service.errors import StartupError, StoreUnavailable
from service.store.redis import RedisStore, pack, unpack
from tests.conftest import VIT
from tests.service.store.test_store import without_waiting
from tests.service.telemetry.test_observability import scrape
from tests.support.answers import results
from tests.support.memory import bounded_growth
from tests.support.pictures import png
from tests.support.redis_server import RedisServer, running_redis
from tests.support.server import ROOT, Server, running_server
from tests.support.waiting import until

SECRET = "deepvit:secret"
REDIS_UNAVAILABLE = "redis, unavailable"
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


def store(url: str) -> RedisStore:
    return RedisStore(url, timeout_s=0.1, ttl_s=1000)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://:secret@cache",
        "unix:///tmp/redis.sock?password=secret",
        "redis://",
        "redis://:6379",
        "redis://:secret@cache:port",
        "redis://:se/cret@cache",
        "redis://:secret@cache:65536",
        "redis://:secret@cache/inputs",
        "redis://:secret@cache/0/1",
        "redis://:secret@cache?db=secret",
        "redis://:secret@cache?no_such_option=1",
        "rediss://:secret@cache?ssl_cert_reqs=secret",
        "redis://:secret@[::1",
    ],
)
def test_a_wrong_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(StartupError, match=r"store_url: not redis://") as refused:
        store(url)
    assert "secret" not in refused.value.detail
    assert "cret@" not in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/",
        "redis://user:pass%2Fword@cache/3",
        "redis://[::1]:6379",
        "rediss://cache?ssl_cert_reqs=none",
        "redis://cache?socket_timeout=100&decode_responses=yes&max_connections=1000",
    ],
)
def test_a_valid_url_is_accepted(url: str) -> None:
    assert store(url).state == "redis"


def test_a_wrong_password_is_an_outage_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def found(url: str) -> str:
        opened = store(url)
        await opened.open()
        await opened.close()
        return opened.state

    with running_redis("--requirepass", "right") as redis, caplog.at_level(logging.WARNING):
        address = redis.url.removeprefix("redis://")
        assert asyncio.run(found(f"redis://:right@{address}/3")) == "redis"
        assert caplog.text == ""
        assert asyncio.run(found(f"redis://:secret@{address}")) == REDIS_UNAVAILABLE
        assert asyncio.run(found(f"redis://{address}")) == REDIS_UNAVAILABLE
    assert f"no Redis at {address}" in caplog.text
    assert "secret" not in caplog.text


def test_put_does_not_wait_in_an_outage(redis_server: RedisServer) -> None:
    async def outage() -> None:
        hanging = store(redis_server.url)
        redis_server.freeze()
        await hanging.put("a", np.zeros((1, 1, 3), np.uint8))
        assert hanging.state == REDIS_UNAVAILABLE
        without_waiting(hanging.put("a", np.zeros((1, 1, 3), np.uint8)))
        with pytest.raises(StoreUnavailable):
            await hanging.get("a")
        await hanging.close()

    asyncio.run(outage())


def test_more_puts_than_connections_are_all_kept(redis_server: RedisServer) -> None:
    async def crowd() -> None:
        shared = RedisStore(redis_server.url, timeout_s=10, ttl_s=1000)
        inputs = [np.full((224, 224, 3), level, np.uint8) for level in range(100)]
        await asyncio.gather(*(shared.put(str(i), one) for i, one in enumerate(inputs)))
        found = await asyncio.gather(*(shared.get(str(i)) for i in range(100)))
        assert all(map(np.array_equal, found, inputs))
        with redis_server.client() as client:
            assert len(client.client_list()) <= 17  # including this one
        await shared.close()

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("ttl_s", "milliseconds"), [(1e-9, 1), (1.5, 1500), (float("inf"), 10**12)]
)
def test_redis_accepts_any_time_to_live(
    redis_server: RedisServer, ttl_s: float, milliseconds: int
) -> None:
    async def put() -> None:
        shared = RedisStore(redis_server.url, timeout_s=10, ttl_s=ttl_s)
        await shared.put("a", np.zeros((1, 1, 3), np.uint8))
        assert shared.state == "redis"
        await shared.close()

    asyncio.run(put())
    with redis_server.client() as client:
        assert client.pttl("deepvit:input:a") <= milliseconds


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))
INPUTS: Any = arrays.arrays(np.uint8, SIZES)
PACKED = pack(np.zeros((2, 1, 3), np.uint8))


def shaped(*lengths: int, content: bytes) -> bytes:
    return PACKED[:8] + struct.pack(f"<B{len(lengths)}I", len(lengths), *lengths) + content


UNREADABLE = {
    "nothing but the magic bytes": PACKED[:8],
    "no lengths": PACKED[:9],
    "a byte too few": PACKED[:-1],
    "a byte too many": PACKED + b"\0",
    "other magic bytes": b"D" + PACKED[1:],
    "a later version of the format": PACKED[:7] + b"\x02" + PACKED[8:],
    "255 axes": PACKED[:8] + b"\xff" + PACKED[9:],
    "no axes": shaped(content=b"\0"),
    "two axes": shaped(2, 3, content=bytes(6)),
    "four axes": shaped(1, 2, 1, 3, content=bytes(6)),
    "one channel": shaped(2, 3, 1, content=bytes(6)),
    "no pixels": shaped(0, 0, 3, content=b""),
    "float32": shaped(2, 1, 3, content=bytes(24)),
    "lengths that overflow": shaped(2**32 - 1, 2**32 - 1, 3, content=bytes(6)),
    "lengths beside a zero": shaped(0, 2**32 - 1, 3, content=bytes(6)),
    "a pickle": pickle.dumps(np.zeros((2, 3), np.uint8)),
}


@given(INPUTS)
def test_unpack_inverts_pack(pixels: Pixels) -> None:
    found = unpack(pack(pixels))
    assert found is not None
    assert found.shape == pixels.shape
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_unpack_refuses_other_values(value: bytes) -> None:
    assert unpack(value) is None


@given(st.binary(), st.integers(0, len(PACKED)))
def test_any_bytes_are_unpacked_or_refused(tail: bytes, kept: int) -> None:
    found = unpack(PACKED[:kept] + tail)
    assert found is None or pack(found) == PACKED[:kept] + tail
