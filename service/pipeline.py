"""One request from image bytes to arrays: decode, preprocess, queue, inference.

Composes the decoder, the store and the models. Knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from models.arrays import Float32Array, Pixels
from models.size import Size
from service.errors import DeadlineExceeded, InputMismatch, ServiceError
from service.imaging.preparation import Prepared
from service.imaging.preparer import Preparer
from service.inference.arrivals import Arrivals
from service.inference.batching import Admission, Batcher, Done
from service.inference.repository import ModelRepository
from service.inference.served import ServedModel
from service.monitor.monitor import Monitor
from service.store import Store, content_id

T = TypeVar("T")


@dataclass(frozen=True)
class Classification:
    """A model's outputs for one image by name, with the time that they took."""

    id: str
    image: Prepared
    outputs: Mapping[str, Float32Array]
    queue_s: float
    inference_s: float  # of the whole batch
    ended: float  # a time of time.perf_counter


@dataclass(frozen=True)
class Ticket:
    """A request that has been admitted to a queue of one version of a model."""

    model: ServedModel
    admission: "Admission[Any, Any]"
    explain: tuple[str, ...]  # requested outputs of the explain graph; none for the classifier
    deadline: float  # a time of time.perf_counter


@dataclass(frozen=True)
class Pipeline:
    models: ModelRepository
    store: Store
    preparer: Preparer
    pool: Executor  # threads that decode, preprocess and encode
    monitor: Monitor
    _arrivals: Arrivals = field(default_factory=Arrivals)

    @contextmanager
    def admit(
        self, model: ServedModel, deadline: float, explain: Sequence[str] = ()
    ) -> Iterator[Ticket]:
        """A slot in a queue of the model, held before there is an image for it.

        It is the explainer's queue if outputs of the explain graph are named. Raises `QueueFull`
        or `Stopped`.
        """
        with _admission(model, explain) as admission:
            yield Ticket(model, admission, tuple(explain), deadline)

    def check_room(self, model: ServedModel, explain: Sequence[str] = ()) -> None:
        """Refuse a request before its body is read. Raises `QueueFull` or `Stopped`."""
        with _admission(model, explain):
            pass  # a slot that waited for a body would be lost to those whose bodies are there

    async def classify(
        self,
        ticket: Ticket,
        uploads: Sequence[bytes],
        decoded: Callable[[], None] = lambda: None,
    ) -> list[Classification]:
        """The logits of each upload, in order, and the other outputs that the ticket names.

        One bad image fails the request before any image is queued. Raises `QueueFull` before
        any image is decoded. Once all are, `decoded` is called: the uploads are needed no more.
        """
        with _CountingFailures(ticket.model):
            ticket.admission.reserve(len(uploads))
        await _open(ticket)
        rule = ticket.model.manifest.preprocessing
        images = await self.preparer.prepare(uploads, rule, ticket.deadline)
        decoded()
        pixels = [image.pixels for image in images]
        running = self._run(ticket, pixels, tuple(dict.fromkeys(("logits", *ticket.explain))))
        ids = [content_id(image, self.store.secret) for image in pixels]  # while the model runs
        if self.store.remote:
            done = await self._and_put(ids, pixels, running)
        else:
            done = await running
            await self._put(ids, pixels)
        self._offer(ticket, pixels, done)
        return [
            Classification(image_id, image, one.value, one.queue_s, one.run_s, one.ended)
            for image_id, image, one in zip(ids, images, done, strict=True)
        ]

    async def explain(self, ticket: Ticket, pixels: Pixels) -> Done[Mapping[str, Float32Array]]:
        """The outputs that the ticket names, for one input of its model [height, width, 3]."""
        await _open(ticket)
        (done,) = await self._run(ticket, [pixels], ticket.explain)
        return done

    async def infer(self, ticket: Ticket, images: Pixels) -> list[Done[Mapping[str, Float32Array]]]:
        """The logits, or the outputs that the ticket names.

        `images` [B, height, width, 3] are prepared for its model.
        """
        await _open(ticket)
        pixels = list(images)
        done = await self._run(ticket, pixels, ticket.explain)
        self._offer(ticket, pixels, done)
        return done

    async def in_pool(self, deadline: float, work: Callable[[], T]) -> T:
        """Run work on the thread pool; megabytes of tensors would block the event loop.

        Raises `DeadlineExceeded`, and what `work` raises.
        """
        return await by_deadline(deadline, self.pool, work)

    async def input(self, model: ServedModel, image_id: str) -> Pixels:
        """The network's input of an image classified before, [height, width, 3].

        Raises `UnknownImage`, `ExpiredImage`, `StoreUnavailable` or `InputMismatch`.
        """
        pixels = await self.store.get(image_id)
        size = model.manifest.preprocessing.size
        prepared = Size(*pixels.shape[:2])
        if prepared != size:
            raise InputMismatch(
                f"image {image_id} was prepared at {prepared} px and {model.manifest.name} takes "
                f"{size} px; classify the image with that model too"
            )
        return pixels

    async def _put(self, ids: Sequence[str], images: Sequence[Pixels]) -> None:
        await _gather(list(map(self.store.put, ids, images)))

    async def _and_put(
        self, ids: Sequence[str], images: Sequence[Pixels], running: Awaitable[T]
    ) -> T:
        """What `running` gives, once the store has the images too; it begins meanwhile."""
        putting = asyncio.ensure_future(self._put(ids, images))
        try:
            result = await running
            await putting
        finally:
            putting.cancel()
        return result

    def _run(
        self, ticket: Ticket, images: Sequence[Pixels], names: tuple[str, ...]
    ) -> "Coroutine[Any, Any, list[Done[Mapping[str, Float32Array]]]]":
        """Queue images at once, for the results to be awaited.

        The classifier's queue gives the logits only.
        """
        started = time.perf_counter()
        key = names if ticket.explain else None
        with _CountingFailures(ticket.model):
            submitted = ticket.admission.submit(images, key, ticket.deadline)
        return self._results(ticket, submitted, started)

    async def _results(
        self, ticket: Ticket, submitted: "Sequence[Future[Done[Any]]]", started: float
    ) -> list[Done[Mapping[str, Float32Array]]]:
        with _CountingFailures(ticket.model):
            done = await self._arrivals.of(submitted)
        last = max(done, key=lambda one: one.queue_s + one.run_s)
        ticket.model.statistics.answered(
            len(done),
            queue_s=last.queue_s,
            inference_s=last.run_s,
            total_s=time.perf_counter() - started,
        )
        if ticket.explain:
            return done
        return [Done({"logits": one.value}, *one[1:]) for one in done]

    def _offer(
        self,
        ticket: Ticket,
        images: Sequence[Pixels],
        done: Sequence[Done[Mapping[str, Float32Array]]],
    ) -> None:
        """Let the monitor measure some of the images that have just been answered."""
        if self.monitor.sample:
            self.monitor.offer(ticket.model, images, [one.value.get("logits") for one in done])


async def by_deadline(deadline: float, pool: Executor, work: Callable[[], T]) -> T:
    """The result of `work`, which is not begun after `deadline`, a time of `time.perf_counter`.

    Raises `DeadlineExceeded`, and what `work` raises.
    """
    try:
        async with asyncio.timeout(deadline - time.perf_counter()):
            return await asyncio.get_running_loop().run_in_executor(pool, work)
    except TimeoutError as exc:
        raise DeadlineExceeded("the request waited past its deadline") from exc


def _admission(model: ServedModel, explain: Sequence[str]) -> "Admission[Any, Any]":
    """A slot in the queue for these outputs. Raises `QueueFull` or `Stopped`."""
    batcher: Batcher[Any, Any] = model.explainer if explain else model.classifier
    with _CountingFailures(model):
        return batcher.admit()


async def _open(ticket: Ticket) -> None:
    if ticket.explain:
        await ticket.model.open_explainer(ticket.explain)


class _CountingFailures:
    """Counts a `ServiceError` inside the block as a failed request in the model's statistics.

    A class, because a generator takes longer, and each request has several of these blocks.
    """

    def __init__(self, model: ServedModel) -> None:
        self._statistics = model.statistics
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ServiceError):
            self._statistics.failed(time.perf_counter() - self._started)


async def _gather(awaitables: "Sequence[Awaitable[T]]") -> list[T]:
    """`asyncio.gather`, without its overhead for one awaitable, as most requests have."""
    return [await awaitables[0]] if len(awaitables) == 1 else await asyncio.gather(*awaitables)
