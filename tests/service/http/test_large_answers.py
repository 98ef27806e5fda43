"""Large answers are built beside the event loop, or refused before anything is computed."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import Request

from models.size import Size
from service.errors import AnswerTooLarge, DeadlineExceeded
from service.explain import similarity
from service.explain.selection import Selection
from service.http import answers, pictures
from service.http.pools import in_pool
from service.oip import rest
from service.runtime import Runtime
from tests.conftest import DEEPVIT
from tests.support.counts import settled_counts
from tests.support.pictures import noise
from tests.support.server import running_server
from tests.support.service import client_of, running_service

INFER = f"/v2/models/{DEEPVIT}/infer"
WHOLE = {"query": "all", "head": "all"}
MAX_ANSWER_BYTES = 300_000
IMAGES = [noise(random.Random(0)) for _ in range(3)]


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[Runtime]:
    with running_service(repository) as runtime:
        yield runtime


def infer_request(*outputs: str) -> dict[str, Any]:
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [7] * 3072}
    return {"inputs": [image], "outputs": [{"name": name} for name in outputs]}


def form(images: int) -> list[tuple[str, bytes]]:
    return [("image", image) for image in IMAGES[:images]]


@contextmanager
def slow(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Iterator[threading.Event]:
    """Makes a function wait until the block ends; the event says that it has been called."""
    work: Callable[..., Any] = getattr(owner, name)
    called, released = threading.Event(), threading.Event()

    def wait(*arguments: Any, **named: Any) -> Any:
        called.set()
        assert released.wait(20)
        return work(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, wait)
        try:
            yield called
        finally:
            released.set()


@pytest.mark.parametrize(
    ("owner", "name", "path", "query", "images"),
    [
        (Selection, "cut", "/attention-maps", WHOLE, 1),
        (Selection, "cut", "/attention-maps", WHOLE | {"format": "npy"}, 1),
        (Selection, "cut", "/attention-maps", WHOLE | {"format": "npz"}, 1),
        (Selection, "cut", "/attention-maps", {"format": "png"}, 1),
        (similarity, "measure", "/similarity", {}, 1),
        (similarity, "measure", "/similarity", {"format": "png"}, 1),
        (Selection, "cut", "/classify", {"attention": "true"}, 1),
        (similarity, "measure", "/classify", {"similarity": "true"}, 1),
        (answers, "json_response", "/classify", {"attention": "true"}, 1),
        (answers, "json_response", "/classify", {}, 3),
        (rest, "encode", INFER, {}, 1),
    ],
)
def test_others_are_answered_while_a_large_answer_is_built(
    running: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    path: str,
    query: dict[str, str],
    images: int,
) -> None:
    async def scenario() -> None:
        async with client_of(running) as client:
            if path == INFER:
                asking = client.post(path, json=infer_request("softmax.map.00"))
            elif path == "/classify":
                asking = client.post(path, params=query, files=form(images))
            else:
                found = (await client.post("/classify", files=form(1))).json()["results"][0]
                asking = client.get(path, params=query | {"id": found["id"]})
            with slow(monkeypatch, owner, name) as building:
                asked = asyncio.create_task(asking)
                assert await asyncio.to_thread(building.wait, 60)
                assert (await client.get("/livez")).status_code == 200
                assert not asked.done()
            assert (await asked).status_code == 200

    asyncio.run(scenario())


def test_an_answer_that_is_too_large_is_refused_before_the_model_runs(repository: Path) -> None:
    with (
        running_server(repository, max_answer_bytes=MAX_ANSWER_BYTES) as server,
        server.client() as client,
    ):
        ids = client.post("/classify", files=form(1)).json()["results"]
        before = settled_counts(client)
        refused = [
            client.get("/attention-maps", params=WHOLE | {"id": ids[0]["id"], "format": kind})
            for kind in ("json", "npy", "npz", "png")
        ]
        extras = {"attention": "true", "similarity": "true"}
        refused.append(client.post("/classify", params=extras, files=form(3)))
        for answer in refused:
            assert (answer.status_code, answer.json()["code"]) == (422, "answer-too-large")
        assert "send fewer images" in refused[-1].json()["detail"]
        large = client.post(INFER, json=infer_request("softmax.map.00", "softmax.map.01"))
        assert large.status_code == 422
        assert settled_counts(client) == before

        assert client.post("/classify", files=form(3)).status_code == 200
        one = client.post("/classify", params=extras, files=form(1))
        assert one.status_code == 200
        assert len(one.content) <= MAX_ANSWER_BYTES
        assert settled_counts(client)["answered"] == before["answered"] + 4


def test_more_maps_than_fit_a_picture_are_refused_before_the_model_runs(running: Runtime) -> None:
    """32 blocks of 16 heads at 384 px, drawn over the picture."""
    manifest = running.pipeline.models.get(DEEPVIT).manifest
    large = manifest.model_copy(
        update={
            "config": manifest.config.model_copy(
                update={
                    "img_size": Size.of(384),
                    "patch_size": Size.of(16),
                    "depth": 32,
                    "num_heads": 16,
                }
            ),
            "preprocessing": manifest.preprocessing.model_copy(update={"size": Size.of(384)}),
        }
    )

    def selected(layer: str) -> Selection:
        return Selection.parse(
            large, stage="softmax", layer=layer, head="all", query="cls", direction="from"
        )

    with pytest.raises(AnswerTooLarge, match="512 maps do not fit one picture"):
        pictures.check_attention(selected("all"), "all", overlay=True)
    pictures.check_attention(selected("0,1,2"), "all", overlay=True)
    pictures.check_attention(selected("all"), "all", overlay=False)


def test_nothing_is_built_after_the_deadline() -> None:
    busy, built = threading.Event(), list[str]()

    async def stays() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    with ThreadPoolExecutor(1) as pool:
        pool.submit(busy.wait)
        request = Request({"type": "http"}, cast(Any, stays))
        deadline = time.perf_counter() + 0.05
        try:
            with pytest.raises(DeadlineExceeded):
                asyncio.run(in_pool(request, pool, deadline, lambda: built.append("built")))
        finally:
            busy.set()
    assert built == []
