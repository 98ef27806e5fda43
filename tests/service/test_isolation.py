"""The answer for an image does not depend on what shares its batch or its queue.

In a batch of the same size it is the same to the last bit. With other batch sizes, matrix products
may be split differently; there it is the same within `ATOL`, with the same ranking of classes.
"""

import asyncio
import gzip
import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.arrays import Float32Array, Pixels
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT, VIT
from tests.service.imaging.encoded import MAX_PIXELS, noise
from tests.service.imaging.test_too_large import BOMBS, png_claiming
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.memory import bounded_growth
from tests.support.server import LARGEST_BATCH, running_server
from tests.support.service import client_of, running_service

ATOL = 1e-5  # of logits between 1 and 5
RAW = {"Content-Type": "application/octet-stream"}
FORMATS_CUT = ("JPEG", "PNG", "WEBP", "GIF")


def photos(photo: bytes, count: int) -> list[bytes]:
    """Different images: the photograph, rotated in small steps."""
    whole = Image.open(io.BytesIO(photo)).resize((64, 64))
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        whole.rotate(360 * index / count).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def damaged(photo: bytes) -> list[tuple[bytes, int]]:
    """Bodies that are not a valid image, each with the status of its answer."""
    return [
        (photo[: len(photo) // 2], 400),
        *((noise(name)[: len(noise(name)) // 2], 400) for name in FORMATS_CUT),
        (b"%PDF-1.7 and so on", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (bytes(5000), 415),
        (b"", 400),
        (png_claiming(60_000, 60_000), 413),
        (png_claiming(100, 100), 400),
        (BOMBS["GIF frame"], 413),
        (BOMBS["WEBP canvas"], 413),
    ]


@pytest.mark.parametrize("model", [DEEPVIT, VIT])
def test_an_image_is_the_same_alone_and_anywhere_in_a_batch_of_any_size(
    repository: Path, model: str
) -> None:
    engine = OnnxEngine(repository / model / "1", EngineOptions(provider="cpu"))
    random = np.random.default_rng(1)
    images: list[Pixels] = list(random.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
    alone = [engine.classify([image])[0] for image in images]
    for size in range(2, engine.max_batch_size + 1):
        first = size % (engine.max_batch_size - size + 1)  # not always the same ones
        chosen = range(first, first + size)
        together = engine.classify([images[index] for index in chosen])
        for index, logits in zip(chosen, together, strict=True):
            np.testing.assert_allclose(logits, alone[index], atol=ATOL, rtol=0)
            assert list(np.argsort(-logits)) == list(np.argsort(-alone[index]))
    for place in range(8):
        company = images[1:8]
        company.insert(place, images[0])
        logits = engine.classify(company)[place]
        np.testing.assert_allclose(logits, alone[0], atol=ATOL, rtol=0)
        others = [255 - image for image in company]
        others[place] = images[0]
        np.testing.assert_array_equal(engine.classify(others)[place], logits)


def test_damaged_images_between_good_ones_change_no_bit(repository: Path, photo: bytes) -> None:
    """The same good requests twice, as one batch each time, once with bad ones among them."""
    good = photos(photo, 16)
    bad = damaged(photo)

    async def answers(mixed: bool) -> tuple[list[int], list[Float32Array]]:
        """Batch sizes and logits, in the order of the requests."""
        with running_service(repository, decode_threads=1) as running:
            batcher = running.pipeline.models.get(DEEPVIT).classifier
            run, held, released = batcher._run, threading.Event(), threading.Event()
            batches: list[Sequence[Any]] = []

            def recorded(images: Any, key: Any) -> Any:
                held.set()
                assert released.wait(60)
                batches.append(run(images, key))
                return batches[-1]

            batcher._run = recorded  # slow, so that the others queue
            async with client_of(running) as client, asyncio.timeout(120):

                async def post(body: bytes) -> int:
                    return (await client.post("/classify", content=body, headers=RAW)).status_code

                tasks = [asyncio.create_task(post(good[0]))]
                await asyncio.to_thread(held.wait)
                for index, body in enumerate(good, start=1):
                    tasks.append(asyncio.create_task(post(body)))
                    while batcher.depth < index:
                        await asyncio.sleep(0)
                    if mixed:
                        wrong, status = bad[index % len(bad)]
                        assert await post(wrong) == status  # while the others wait
                released.set()
                assert set(await asyncio.gather(*tasks)) == {200}
            assert batcher.counts.accepted == batcher.counts.answered == len(good) + 1
            return [len(batch) for batch in batches], [one for batch in batches for one in batch]

    sizes, expected = asyncio.run(answers(mixed=False))
    assert sizes == [1, len(good)]
    found_sizes, found = asyncio.run(answers(mixed=True))
    assert found_sizes == sizes
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(logits) for logits in expected}) == len(good)  # all different


def test_good_and_bad_at_once_each_get_their_own_answer(repository: Path, photo: bytes) -> None:
    good = photos(photo, 12)
    with running_server(repository) as server, server.client() as client:
        before = answers_of_both_models(client, photo)
        alone = [predictions(post(client, body)) for body in good]
        wanted: list[tuple[bytes, int | Any]] = [*zip(good, alone, strict=True), *damaged(photo)]
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda one: post(client, one[0]), wanted * 8))
        for response, (_, expected) in zip(found, wanted * 8, strict=True):
            if isinstance(expected, int):
                assert response.status_code == expected
                assert response.headers["content-type"] == "application/problem+json"
            else:
                assert predictions(response) == pytest.approx(expected, abs=1e-5)
        assert answers_of_both_models(client, photo) == before
        counts = settled_counts(client)
        assert counts["failed"] == counts["expired"] == counts["cancelled"] == 0
    assert "Traceback" not in "".join(server.log)


def test_bombs_from_all_sides_take_little_memory(repository: Path, photo: bytes) -> None:
    """Images of billions of pixels and gigabytes of zeros, 12 at once."""
    zeros = gzip.compress(bytes(2**28))
    infer = f"/v2/models/{DEEPVIT}/infer"
    with (
        running_server(
            repository,
            max_image_pixels=MAX_PIXELS,
            image_formats="all",
            max_batch_size=LARGEST_BATCH,
        ) as server,
        server.client() as client,
    ):
        before = answers_of_both_models(client, photo)

        def attack(bomb: bytes | None) -> httpx.Response:
            if bomb is None:
                return client.post(infer, content=zeros, headers={"Content-Encoding": "gzip"})
            return post(client, bomb)

        with bounded_growth(server.process.pid, 250), ThreadPoolExecutor(12) as pool:
            found = list(pool.map(attack, [*BOMBS.values(), None] * 5))
        assert {response.status_code for response in found} == {413}
        assert answers_of_both_models(client, photo) == before
        settled_counts(client)


def post(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/classify?top_k=10", content=body, headers=RAW)


def predictions(response: httpx.Response) -> dict[str, float]:
    """Probability by label."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return {found["label"]: found["probability"] for found in result["predictions"]}
