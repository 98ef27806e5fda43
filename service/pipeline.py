"""One request from bytes to arrays: decode, preprocess, queue, inference.

Composes the decoder, the store and the models; knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

from models.preprocess import Pixels, Preprocessing, preprocess
from service.batching import Done
from service.engine import Array
from service.errors import InputMismatch, ServiceError
from service.imaging import Decoder
from service.repository import ModelRepository, ServedModel
from service.store import MemoryStore, content_id

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """One upload as network input, and the seconds it took."""

    id: str
    pixels: Pixels  # [S, S, 3]
    decode_s: float
    preprocess_s: float


@dataclass(frozen=True)
class Answer:
    """What a model said about one image: its outputs by name, and the seconds it took."""

    image: Prepared
    outputs: Mapping[str, Array]
    queue_s: float
    inference_s: float


@dataclass(frozen=True)
class Pipeline:
    models: ModelRepository
    store: MemoryStore
    decoder: Decoder
    pool: Executor  # decodes and preprocesses

    async def classify(
        self, model: ServedModel, uploads: Sequence[bytes], explain: Sequence[str] = ()
    ) -> list[Answer]:
        """Logits for each upload, in order; with `explain`, other outputs of the same run too.

        One bad image fails the request before anything is queued.
        """
        rule = model.manifest.preprocessing
        loop = asyncio.get_running_loop()
        images = await asyncio.gather(
            *(
                loop.run_in_executor(self.pool, self._prepare, upload, rule, index, len(uploads))
                for index, upload in enumerate(uploads)
            )
        )
        pixels = [image.pixels for image in images]
        done = await self._run(model, pixels, tuple(dict.fromkeys(("logits", *explain))))
        for image in images:
            self.store.put(image.id, image.pixels)
        return [
            Answer(image, one.value, one.queue_s, one.run_s)
            for image, one in zip(images, done, strict=True)
        ]

    async def explain(
        self, model: ServedModel, image_id: str, names: Sequence[str]
    ) -> Mapping[str, Array]:
        """Named outputs of the explain graph for an image classified before."""
        pixels = self.input(model, image_id)
        (done,) = await self._run(model, [pixels], tuple(names))
        return done.value

    async def infer(
        self, model: ServedModel, images: Pixels, names: Sequence[str]
    ) -> list[dict[str, Array]]:
        """Named outputs for each of `images` [B, S, S, 3], which were prepared elsewhere."""
        done = await self._run(model, list(images), tuple(names))
        return [one.value for one in done]

    def input(self, model: ServedModel, image_id: str) -> Pixels:
        """What the model saw of an image classified before. [S, S, 3]"""
        pixels = self.store.get(image_id)
        size = model.manifest.preprocessing.size
        if pixels.shape != (size, size, 3):
            raise InputMismatch(
                f"{image_id} was prepared at {pixels.shape[0]} px and {model.manifest.name} "
                f"takes {size} px; classify the image with that model too"
            )
        return pixels

    async def _run(
        self, model: ServedModel, images: Sequence[Pixels], names: tuple[str, ...]
    ) -> list[Done[dict[str, Array]]]:
        """Through a queue of the model: the classifier's where logits are all that is wanted."""
        started = time.perf_counter()
        try:
            if names == ("logits",):
                classified = await _gather(model.classifier.submit(images))
                done = [Done({"logits": one.value}, one.queue_s, one.run_s) for one in classified]
            else:
                done = await _gather(model.explainer.submit(images, names))
        except ServiceError:
            model.statistics.failed(time.perf_counter() - started)
            raise
        last = max(done, key=lambda one: one.queue_s + one.run_s)
        model.statistics.answered(
            len(done),
            queue_s=last.queue_s,
            inference_s=last.run_s,
            total_s=time.perf_counter() - started,
        )
        return done

    def _prepare(self, upload: bytes, rule: Preprocessing, index: int, count: int) -> Prepared:
        started = time.perf_counter()
        try:
            image = self.decoder.decode(upload)
        except ServiceError as exc:
            if count > 1:
                exc.detail = f"image {index + 1} of {count}: {exc.detail}"
            raise
        decoded = time.perf_counter()
        pixels = preprocess(image, rule)
        image_id = content_id(pixels)
        return Prepared(image_id, pixels, decoded - started, time.perf_counter() - decoded)


async def _gather(futures: "Sequence[Future[T]]") -> list[T]:
    return await asyncio.gather(*map(asyncio.wrap_future, futures))
