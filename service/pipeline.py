"""One request from bytes to arrays: decode, preprocess, queue, inference.

Composes the decoder, the store and the models; knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL.Image import Image

from models.arrays import Float32Array, Pixels
from models.preprocess import Preprocessing, preprocess
from service.errors import InputMismatch, ServiceError
from service.imaging import Decoder
from service.inference.batching import Admission, Batcher, Done
from service.inference.repository import ModelRepository, ServedModel
from service.store import Store, content_id

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """One upload as network input, and the seconds it took, up to a time of perf_counter."""

    id: str
    pixels: Pixels  # [S, S, 3]
    decode_s: float
    preprocess_s: float
    ended: float


@dataclass(frozen=True)
class Answer:
    """What a model said about one image: its outputs by name, and the seconds it took, up to a
    time of perf_counter."""

    image: Prepared
    outputs: Mapping[str, Float32Array]
    queue_s: float
    inference_s: float
    ended: float


@dataclass(frozen=True)
class Ticket:
    """A request's right to one version of a model, and what it has in hand."""

    model: ServedModel
    places: "Admission[Any, Any]"
    explain: tuple[str, ...]  # outputs of the explain graph that are wanted beside the logits
    deadline: float  # of time.perf_counter


@dataclass(frozen=True)
class Pipeline:
    models: ModelRepository
    store: Store
    decoder: Decoder
    pool: Executor  # decodes, preprocesses and encodes

    @contextmanager
    def admit(
        self, model: ServedModel, deadline: float, explain: Sequence[str] = ()
    ) -> Iterator[Ticket]:
        """A place in a model's queue before there is an image for it.

        Raises `QueueFull` or `Stopped`.
        """
        batcher: Batcher[Any, Any] = model.explainer if explain else model.classifier
        with _failures_counted(model):
            admission = batcher.admit()
        with admission as places:
            yield Ticket(model, places, tuple(explain), deadline)

    async def classify(self, ticket: Ticket, uploads: Sequence[bytes]) -> list[Answer]:
        """Logits for each upload, in order, and what else the ticket names.

        One bad image fails the request before anything is queued. Raises `QueueFull` before
        anything is decoded.
        """
        with _failures_counted(ticket.model):
            ticket.places.reserve(len(uploads))
        images = await self._prepared(uploads, ticket.model.manifest.preprocessing)
        pixels = [image.pixels for image in images]
        done = await self._run(ticket, pixels, tuple(dict.fromkeys(("logits", *ticket.explain))))
        await _all([self.store.put(image.id, image.pixels) for image in images])
        return [
            Answer(image, one.value, one.queue_s, one.run_s, one.ended)
            for image, one in zip(images, done, strict=True)
        ]

    async def explain(self, ticket: Ticket, pixels: Pixels) -> Done[Mapping[str, Float32Array]]:
        """The outputs that the ticket names, for an input of its model."""
        (done,) = await self._run(ticket, [pixels], ticket.explain)
        return done

    async def infer(self, ticket: Ticket, images: Pixels) -> list[Done[Mapping[str, Float32Array]]]:
        """Logits, or what the ticket names, of `images` [B, S, S, 3] prepared elsewhere."""
        return await self._run(ticket, list(images), ticket.explain)

    async def in_pool(self, work: Callable[[], T]) -> T:
        """Beside the event loop, which would stand still for megabytes of tensors."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def input(self, model: ServedModel, image_id: str) -> Pixels:
        """What the model saw of an image classified before. [S, S, 3]"""
        pixels = await self.store.get(image_id)
        size = model.manifest.preprocessing.size
        if pixels.shape != (size, size, 3):
            raise InputMismatch(
                f"{image_id} was prepared at {pixels.shape[0]} px and {model.manifest.name} "
                f"takes {size} px; classify the image with that model too"
            )
        return pixels

    async def _run(
        self, ticket: Ticket, images: Sequence[Pixels], names: tuple[str, ...]
    ) -> list[Done[Mapping[str, Float32Array]]]:
        """Through the queue that the ticket is for; the classifier's gives nothing but logits."""
        started = time.perf_counter()
        key = names if ticket.explain else None
        with _failures_counted(ticket.model):
            done = await _all(
                [
                    asyncio.wrap_future(one)
                    for one in ticket.places.submit(images, key, ticket.deadline)
                ]
            )
        last = max(done, key=lambda one: one.queue_s + one.run_s)
        ticket.model.statistics.answered(
            len(done),
            queue_s=last.queue_s,
            inference_s=last.run_s,
            total_s=time.perf_counter() - started,
        )
        if key:
            return done
        return [Done({"logits": one.value}, *one[1:]) for one in done]

    async def _prepared(self, uploads: Sequence[bytes], rule: Preprocessing) -> list[Prepared]:
        """Beside the event loop, but for what takes less time than handing it over."""
        if len(uploads) == 1:
            started = time.perf_counter()
            if image := self.decoder.decode_small(uploads[0], rule.resize):
                return [_prepare(image, rule, started)]
        loop = asyncio.get_running_loop()
        return await _all(
            [
                loop.run_in_executor(self.pool, self._decode, upload, rule, index, len(uploads))
                for index, upload in enumerate(uploads)
            ]
        )

    def _decode(self, upload: bytes, rule: Preprocessing, index: int, count: int) -> Prepared:
        started = time.perf_counter()
        try:
            image = self.decoder.decode(upload, rule.resize)
        except ServiceError as exc:
            if count > 1:
                exc.detail = f"image {index + 1} of {count}: {exc.detail}"
            raise
        return _prepare(image, rule, started)


def _prepare(image: Image, rule: Preprocessing, started: float) -> Prepared:
    """A picture whose decoding started at that time of perf_counter."""
    decoded = time.perf_counter()
    pixels = preprocess(image, rule)
    image_id = content_id(pixels)
    ended = time.perf_counter()
    return Prepared(image_id, pixels, decoded - started, ended - decoded, ended)


@contextmanager
def _failures_counted(model: ServedModel) -> Iterator[None]:
    """In the model's statistics: what its queue refuses and what its thread fails."""
    started = time.perf_counter()
    try:
        yield
    except ServiceError:
        model.statistics.failed(time.perf_counter() - started)
        raise


async def _all(awaited: "Sequence[Awaitable[T]]") -> list[T]:
    """Of one, as most requests have, without the tasks that `gather` makes."""
    return [await awaited[0]] if len(awaited) == 1 else await asyncio.gather(*awaited)
