"""The service when clients disconnect, deadlines pass, threads die and models change."""

import asyncio
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from service.app import create_app
from service.inference import onnx_engine
from service.inference.plan import Plan
from service.inference.repository import ModelRepository
from service.runtime import Runtime
from tests.conftest import DEEPVIT, VIT
from tests.support.server import Server, running_server
from tests.support.service import client_of, running_service
from tests.support.versions import add_version, copied


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_batch_thread_fails_liveness_and_no_request_hangs(
    repository: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, instances: int
) -> None:
    monkeypatch.setattr(onnx_engine, "fastest", lambda *_: Plan(instances, threads=1, batch=4))

    async def scenario(running: Runtime) -> None:
        async with client_of(running) as client:
            assert (await client.get("/livez")).status_code == 200
            model = running.pipeline.models.get(DEEPVIT)
            assert len(model.classifier._threads) == instances

            dying = []

            def die(*_: object) -> Any:
                dying.append(threading.current_thread())
                raise KeyboardInterrupt

            model.classifier._run = die  # the only kind of error that ends a batch thread
            failed = await client.post("/classify", files={"image": photo})
            dying[0].join()
            assert (failed.status_code, failed.json()["code"]) == (500, "inference-failed")
            for path in ("/livez", "/readyz"):
                assert (await client.get(path)).status_code == 503
            refused = await client.post("/classify", files={"image": photo})
            assert refused.status_code == 503
            other = await client.post(f"/classify?model={VIT}", files={"image": photo})
            assert other.status_code == 200

    with running_service(repository, intra_op_threads=instances) as running:
        asyncio.run(scenario(running))


def test_a_deadline_that_passes_in_the_queue_is_a_504(server: Server, photo: bytes) -> None:
    with server.client() as client:
        late = client.post(
            "/classify", files=[("image", photo)] * 32, headers={"X-Request-Timeout-Ms": "1"}
        )
        assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
        assert client.post("/classify", files={"image": photo}).status_code == 200
        for wrong in ("0", "-1", "soon"):
            response = client.post(
                "/classify", files={"image": photo}, headers={"X-Request-Timeout-Ms": wrong}
            )
            assert response.status_code == 422


PIXELS = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,32,32,3],"data":[%s]}]}' % (
    b",".join([b"7"] * 3072)
)


@pytest.mark.parametrize("path", ["/classify", f"/v2/models/{DEEPVIT}/infer"])
def test_a_storm_of_clients_that_leave_costs_nothing_and_the_counts_add_up(
    repository: Path, photo: bytes, path: str
) -> None:
    """Half of the clients leave once their request is sent; all others are answered."""
    content = photo if path == "/classify" else PIXELS
    headers = {"content-type": "image/jpeg"}  # /v2 ignores it

    async def scenario(running: Runtime) -> None:
        model = running.pipeline.models.get(DEEPVIT)
        app = create_app(running)
        left = asyncio.Event()
        body = [{"type": "http.request", "body": content, "more_body": False}]

        async def leave() -> None:
            messages = iter(body)

            async def receive() -> dict[str, Any]:
                for message in messages:
                    return message
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(_: Any) -> None: ...

            scope = {
                "type": "http", "method": "POST", "path": path, "query_string": b"",
                "headers": [(b"content-type", b"image/jpeg")], "http_version": "1.1",
                "scheme": "http", "client": None, "server": None, "raw_path": path.encode(),
                "root_path": "",
            }  # fmt: skip
            await app(scope, receive, send)

        taken, released = threading.Event(), threading.Event()
        run = model.classifier._run

        def held(images: Any, key: Any) -> Any:
            taken.set()
            assert released.wait(30)
            return run(images, key)

        model.classifier._run = held  # slow, so that there is a queue to leave
        async with client_of(running) as client, asyncio.timeout(60):
            leaving = [asyncio.create_task(leave()) for _ in range(60)]
            staying = [
                asyncio.create_task(client.post(path, content=content, headers=headers))
                for _ in range(60)
            ]
            while model.classifier.counts.accepted < 120 or not taken.is_set():
                await asyncio.sleep(0)
            waiting = model.classifier.depth
            left.set()
            await asyncio.gather(*leaving)
            assert model.classifier.depth == waiting - model.classifier.counts.cancelled < waiting
            released.set()
            answers = await asyncio.gather(*staying)
        assert {answer.status_code for answer in answers} == {200}
        counts = model.classifier.counts
        assert counts.accepted == 120
        assert counts.answered + counts.cancelled == 120
        assert counts.in_flight == 0
        assert model.classifier._reserved == 0
        assert model.requests == 0
        assert sum(n * count for n, count in counts.batch_sizes.items()) == counts.answered

    with running_service(repository) as running:
        asyncio.run(scenario(running))


def test_a_client_that_leaves_during_its_upload_is_forgotten(server: Server, photo: bytes) -> None:
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
                b"Content-Length: 100000\r\n\r\n" + photo[:1000]
            )
    with server.client() as client:
        assert client.post("/classify", files={"image": photo}).status_code == 200
        assert client.get("/livez").status_code == 200
    assert "Traceback" not in "".join(server.log)


def test_drain_under_load_fails_no_request(repository: Path, photo: bytes) -> None:
    """After SIGTERM: not ready at first, admitted work answered, new work a 503, then exit 0."""
    with running_server(repository, drain_delay_s=1) as server, server.client() as client:

        def ask(_: int) -> int:
            with server.client() as one:
                return one.post("/classify", files=[("image", photo)] * 8).status_code

        with ThreadPoolExecutor(8) as pool:
            under_way = [pool.submit(ask, index) for index in range(8)]
            while not any(future.done() for future in under_way):
                assert client.get("/readyz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            while client.get("/readyz").status_code == 200:
                pass
            refused = client.post("/classify", files={"image": photo})
            assert (refused.status_code, refused.json()["code"]) == (503, "stopped")
            assert client.get("/livez").status_code == 200
            assert {future.result() for future in under_way} <= {200, 503}
            assert 200 in {future.result() for future in under_way}
        assert server.process.wait(timeout=30) == 0


def test_a_new_version_takes_over_under_traffic_without_a_failed_request(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    async def scenario(running: Runtime) -> None:
        models = running.pipeline.models
        old = models.get(DEEPVIT)
        async with client_of(running) as client:
            seen: list[tuple[int, int]] = []
            swapped = asyncio.Event()

            async def traffic() -> None:
                while not swapped.is_set():
                    answer = await client.post("/classify", files={"image": photo})
                    seen.append((answer.status_code, answer.json()["version"]))

            work = [asyncio.create_task(traffic()) for _ in range(8)]
            add_version(repository, tmp_path)
            await models.poll()
            answer = await client.post("/classify", files={"image": photo})
            assert answer.json()["version"] == 2
            swapped.set()
            await asyncio.gather(*work)
            assert {status for status, _ in seen} == {200}
            assert {version for _, version in seen} >= {1}
            gone = await client.post("/classify?version=1", files={"image": photo})
            assert gone.json()["code"] == "unknown-model"
            await asyncio.gather(*models._retiring)
            assert not old.alive

    with running_service(copied(repository, tmp_path)) as running:
        asyncio.run(scenario(running))


def test_a_broken_version_leaves_the_old_one_serving_and_says_why(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    async def scenario(models: ModelRepository, client: httpx.AsyncClient) -> None:
        add_version(repository, tmp_path, damage=True)
        await models.poll()
        answer = await client.post("/classify", files={"image": photo})
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert "not copied completely yet" in models.failures[DEEPVIT]
        shutil.rmtree(tmp_path / DEEPVIT / "2")
        add_version(repository, tmp_path)
        await models.poll()
        assert (await client.post("/classify", files={"image": photo})).json()["version"] == 2
        assert models.failures == {}

    with running_service(copied(repository, tmp_path)) as running:
        asyncio.run(scenario(running.pipeline.models, client_of(running)))


def test_versions_are_addressable_side_by_side(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    add_version(repository, copied(repository, tmp_path))
    with (
        running_server(tmp_path, served_versions=2) as server,
        server.client() as client,
    ):
        answers: Callable[[str], Any] = lambda query: client.post(  # noqa: E731
            f"/classify?{query}", files={"image": photo}
        ).json()
        assert answers("")["version"] == 2
        assert answers("version=1")["version"] == 1
        unknown = answers("version=3")
        assert unknown["code"] == "unknown-model"
        assert unknown["detail"] == f"no version 3 of {DEEPVIT}; served: 1, 2"
        for version in (1, 2):
            for link in answers(f"version={version}")["results"][0]["links"].values():
                assert client.get(link).json()["version"] == version
        listed = [one for one in client.get("/models").json()["models"] if one["name"] == DEEPVIT]
        assert [(one["version"], one["default"]) for one in listed] == [(1, False), (2, True)]
        for one in listed:
            assert client.get(one["url"]).json()["manifest"]["version"] == one["version"]


def test_a_version_whose_folder_is_gone_still_answers_every_request(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    """Its session for the explain graph is opened only then, and must not fail."""
    with running_server(copied(repository, tmp_path)) as server, server.client() as client:
        found = client.post("/classify", files={"image": photo}).json()
        shutil.rmtree(tmp_path / DEEPVIT)
        answer = client.get("/similarity", params={"id": found["results"][0]["id"]})
        assert answer.status_code == 200
