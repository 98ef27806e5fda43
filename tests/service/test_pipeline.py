"""The pipeline by itself, on engines that are held by hand: who waits for what."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from models.arrays import Pixels
from models.imaging import FORMATS
from service.imaging.preparer import Preparer
from service.imaging.process import DecodeOptions
from service.monitor.monitor import Monitor
from service.pipeline import Pipeline
from service.store.memory import MemoryStore
from tests.service.monitor.small_models import PATIENCE_S, hand_models, image
from tests.support.waiting import until


class RemoteStore(MemoryStore):
    """A store whose puts are a round trip, which ends when the test says so."""

    remote = True

    def __init__(self) -> None:
        super().__init__(max_bytes=2**20, ttl_s=PATIENCE_S)
        self.asked, self.answered = asyncio.Event(), asyncio.Event()

    async def put(self, image_id: str, pixels: Pixels) -> None:
        self.asked.set()
        await self.answered.wait()
        await super().put(image_id, pixels)


def pipeline(models: Any, pool: ThreadPoolExecutor, store: MemoryStore) -> Pipeline:
    preparer = Preparer(DecodeOptions(10**6, 2**28, 60, FORMATS), pool, 1)
    return Pipeline(models, store, preparer, pool, Monitor(models, 0))


def test_nobody_waits_for_an_explainer_that_another_request_opens() -> None:
    began, may_end = threading.Event(), threading.Event()

    def opening() -> None:
        began.set()
        assert may_end.wait(PATIENCE_S)

    async def scenario(whole: Pipeline, model: Any) -> None:
        async def explain(names: Sequence[str]) -> set[str]:
            with whole.admit(model, time.perf_counter() + PATIENCE_S, names) as ticket:
                return set((await whole.explain(ticket, image())).value)

        model.engine.openings["new",] = opening
        first = asyncio.ensure_future(explain(["new"]))
        await asyncio.to_thread(began.wait, PATIENCE_S)
        assert await explain(["open"]) == {"open"}
        assert not first.done()
        may_end.set()
        assert await first == {"new"}

    with hand_models() as (models, model, _), ThreadPoolExecutor(1) as pool:
        whole = pipeline(models, pool, MemoryStore(2**20, PATIENCE_S))
        asyncio.run(scenario(whole, model))


def test_a_remote_store_is_written_while_the_model_runs_and_before_the_answer(
    photo: bytes,
) -> None:
    async def scenario(models: Any, model: Any, pool: ThreadPoolExecutor) -> None:
        store = RemoteStore()
        whole = pipeline(models, pool, store)
        model.engine.free_to_classify.clear()
        with whole.admit(model, time.perf_counter() + PATIENCE_S) as ticket:
            classifying = asyncio.ensure_future(whole.classify(ticket, [photo]))
            async with asyncio.timeout(PATIENCE_S):
                await store.asked.wait()
            model.engine.free_to_classify.set()
            await asyncio.to_thread(until, lambda: not model.classifier.busy)
            assert not classifying.done()
            store.answered.set()
            (one,) = await classifying
            assert (await store.get(one.id)).shape == (32, 32, 3)

    with hand_models() as (models, model, _), ThreadPoolExecutor(1) as pool:
        asyncio.run(scenario(models, model, pool))
