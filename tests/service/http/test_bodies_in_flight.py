"""Bodies that stall, from one client and from many: no slot is lost, and memory is bounded."""

import asyncio
import select
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.runtime import Runtime
from tests.conftest import TINY
from tests.support.memory import Footprint, bounded_growth
from tests.support.server import LARGEST_BATCH, Server, running_server
from tests.support.service import accepted, client_of, held, running_service
from tests.support.sockets import connected, statuses
from tests.support.waiting import until

MIB = 2**20
INFER = f"/v2/models/{TINY}/infer"
FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
KINDS = {
    "raw": ("/classify", "image/png", b""),
    "form": ("/classify", "multipart/form-data; boundary=b", FORM),
    "tensors": (INFER, "application/json", b""),
}
OTHER = "127.0.0.2"  # another address of this machine


def head(path: str, kind: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


IDLE = head("/classify", "image/jpeg", 5000)


@pytest.fixture(scope="module")
def room_for_eight(tiny_repository: Path) -> Iterator[Server]:
    """A server that takes eight uploads at a time."""
    with running_server(tiny_repository, max_inflight_uploads=8) as running:
        yield running


@pytest.fixture(scope="module")
def room_for_4_mib(tiny_repository: Path) -> Iterator[Server]:
    """A server that takes 4 MiB of uploads at a time."""
    settings = {"max_upload_bytes": 4 * MIB, "max_inflight_bytes": 4 * MIB}
    with running_server(tiny_repository, **settings) as running:
        yield running


@contextmanager
def idle_uploads(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Bodies that do not come; the server has taken note of each."""
    with ExitStack() as stack, server.client() as client:
        connections = [stack.enter_context(connected(server, IDLE)) for _ in range(count)]
        # The handlers of what was sent before run before that of a request on its way back.
        for _ in range(3):
            client.get("/livez")
        yield connections


@contextmanager
def client_elsewhere(server: Server) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(local_address=OTHER)
    with httpx.Client(base_url=server.url, transport=transport, timeout=60) as client:
        yield client


def answered(connections: list[socket.socket]) -> list[int]:
    """The statuses of the answers that have come."""
    readable, _, _ = select.select(connections, [], [], 0)
    return [statuses(connection.recv(1000))[0] for connection in readable]


def test_bodies_that_do_not_come_take_no_slot(tiny_repository: Path, photo: bytes) -> None:
    with (
        running_server(tiny_repository, max_queue_images=4) as server,
        idle_uploads(server, 20) as connections,
        server.client() as client,
    ):
        for _ in range(10):
            assert client.post("/classify", files={"image": photo}).status_code == 200
            assert client.post(INFER, content=b"{}").status_code == 400
        assert answered(connections) == []


def test_a_full_queue_refuses_before_it_reads_the_body(tiny_repository: Path, photo: bytes) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append("a part")
        yield photo

    async def scenario(running: Runtime) -> None:
        async with client_of(running) as client:
            with held(running) as model:
                waiting = []
                for number in range(2):  # one runs, one waits
                    request = client.post("/classify", files={"image": photo})
                    waiting.append(asyncio.create_task(request))
                    await accepted(model, number + 1)
                    async with asyncio.timeout(60):
                        while model.classifier.depth != number:
                            await asyncio.sleep(0.01)
                for path in ("/classify", INFER):
                    full = await client.post(
                        path, content=body(), headers={"Content-Type": "image/jpeg"}
                    )
                    assert full.status_code == 429
                    assert int(full.headers["retry-after"]) >= 1
            assert [(await task).status_code for task in waiting] == [200, 200]
        assert read == []
        assert running.uploads.bytes == running.uploads.arriving == 0

    with running_service(tiny_repository, max_queue_images=1) as running:
        asyncio.run(scenario(running))


@pytest.mark.parametrize("kind", KINDS)
def test_stalled_uploads_take_bounded_memory(
    tiny_repository: Path, photo: bytes, kind: str
) -> None:
    """Of 40 uploads of 8 MiB that stop one byte before their end, 32 MiB are kept."""
    path, media_type, begin = KINDS[kind]
    begin = head(path, media_type, 8 * MIB) + begin
    settings = {"max_upload_bytes": 8 * MIB, "max_inflight_bytes": 32 * MIB}
    settings["max_batch_size"] = LARGEST_BATCH
    with (
        running_server(tiny_repository, **settings) as server,
        server.client() as client,
        ExitStack() as stack,
    ):
        good = client.post("/classify", files={"image": photo}).json()["results"][0]
        with bounded_growth(server.process.pid, 32 + 48):
            connections = [
                stack.enter_context(connected(server, begin + bytes(8 * MIB - 500)))
                for _ in range(40)
            ]
            until(lambda: client.post("/classify", files={"image": photo}).status_code == 200)
        assert set(answered(connections)) == {429}
        again = client.post("/classify", files={"image": photo}).json()["results"][0]
        assert again["predictions"] == good["predictions"]
        assert 'rejects_total{reason="uploads-full"}' in client.get("/metrics").text
    assert "Traceback" not in "".join(server.log)


def test_decompressed_bytes_count_too(room_for_4_mib: Server) -> None:
    server = room_for_4_mib
    bomb = zlib.compress(bytes(3 * MIB))
    headers = {"Content-Encoding": "deflate"}
    with client_elsewhere(server) as elsewhere:
        begin = head("/classify", "image/png", 4 * MIB) + bytes(2 * MIB)
        with connected(server, begin):
            until(lambda: elsewhere.post(INFER, content=bomb, headers=headers).status_code == 429)
            full = elsewhere.post(INFER, content=bomb, headers=headers)
            assert full.headers["retry-after"] == "1"
            assert full.json()["error"].startswith("Too many uploads at once")
        until(lambda: elsewhere.post(INFER, content=bomb, headers=headers).status_code != 429)


def test_one_address_cannot_hold_all_uploads(room_for_eight: Server, photo: bytes) -> None:
    with (
        idle_uploads(room_for_eight, 8) as connections,
        client_elsewhere(room_for_eight) as elsewhere,
    ):
        assert elsewhere.post("/classify", files={"image": photo}).status_code == 200
        until(lambda: answered(connections) == [429])


def test_behind_a_proxy_stalled_uploads_give_way_to_others(
    room_for_eight: Server, photo: bytes
) -> None:
    """All have the proxy's address; who has just begun is not sent away for a newcomer."""
    with room_for_eight.client() as client:
        trusted = [{"X-Forwarded-For": f"10.0.0.{number}"} for number in range(3)]
        with idle_uploads(room_for_eight, 8):
            until(lambda: client.post("/classify", files={"image": photo}).status_code == 200)
            for headers in trusted:  # a trusted proxy tells clients apart
                told = client.post("/classify", files={"image": photo}, headers=headers)
                assert told.status_code == 200


def test_an_upload_with_a_length_that_cannot_fit_is_refused_unread(room_for_4_mib: Server) -> None:
    server = room_for_4_mib
    with server.client() as client:
        begin = head("/classify", "image/png", 3 * MIB) + bytes(2 * MIB)
        with connected(server, begin):
            asking = head("/classify", "image/png", 4 * MIB - 1)
            until(lambda: client.get("/livez").status_code == 200)

            def refused() -> bool:
                with connected(server, asking) as other:
                    other.settimeout(1)
                    try:
                        return statuses(other.recv(1000)) == [429]
                    except TimeoutError:  # what is before it has not arrived yet
                        return False

            until(refused)


def test_memory_of_refused_uploads_goes_back_to_the_system(repository: Path, photo: bytes) -> None:
    with (
        running_server(repository, max_batch_size=LARGEST_BATCH) as server,
        server.client() as client,
    ):
        for _ in range(3):
            assert client.post("/classify", files={"image": photo}).status_code == 200
        before = Footprint.of(server.process.pid).resident_bytes
        body, kind = bytes(32 * MIB - 5000), {"Content-Type": "image/png"}
        for _ in range(8):
            assert client.post("/classify", content=body, headers=kind).status_code == 415
        until(lambda: Footprint.of(server.process.pid).resident_bytes < before + 24 * MIB)


def test_addresses_are_those_of_sockets(room_for_eight: Server) -> None:
    """What the tests above rely on: this machine answers to a second address of its own."""
    port = urlsplit(room_for_eight.url).port
    assert port
    with socket.create_connection(("127.0.0.1", port), source_address=(OTHER, 0)) as connection:
        assert connection.getsockname()[0] == OTHER
