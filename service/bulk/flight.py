"""Files in flight: from paths to rows, with enough of them under way that batches are full.

Files are read, decoded and queued in groups, since each step from thread to thread costs as much
as decoding a small picture. At most `window` files are anywhere between their path and their row.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from models.arrays import Float32Array, Pixels
from service.assembly import decode_options
from service.bulk.columns import Columns, Row, unreadable
from service.bulk.settings import BulkSettings
from service.errors import OutOfMemory, ServiceError
from service.imaging.preparer import Preparer
from service.inference.batching import Batcher
from service.inference.served import ServedModel

_BATCHES = 3  # one that runs, and two that wait, so that no thread takes less than a full one
_MAX_GROUP = 8
_GROUPS_PER_THREAD = 2
_ATTEMPTS = 3  # to decode when memory is short, which may pass

Read = Callable[[str], bytes]  # a file by its path; raises `UnreadableFile`
Fly = Callable[[Coroutine[Any, Any, list[Row]]], None]


@dataclass(frozen=True)
class Flight:
    model: ServedModel
    preparer: Preparer
    columns: Columns
    threads: Executor  # that read and decode
    decode_threads: int  # how many they are
    read: Read

    @property
    def group(self) -> int:
        """How many files are read together: few for a slow network, whose batches are small."""
        return min(_MAX_GROUP, 4 * self._batch)

    @property
    def window(self) -> int:
        batches = _BATCHES * self._batch * self.model.engine.plan.instances
        return batches + _GROUPS_PER_THREAD * self.group * self.decode_threads

    async def rows(self, paths: Iterator[str], stop: asyncio.Event) -> AsyncIterator[Row]:
        """A row for each path, in the order in which they are done, which is nearly that of paths.

        Once `stop` is set no more files are begun. Raises what is wrong with the list of paths or
        with the model, but for nothing that is wrong with a file.
        """
        landed: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        free = asyncio.Semaphore(self.window)
        processes = asyncio.Semaphore(self.decode_threads + 2)  # that decode, about
        flying: set[asyncio.Task[list[Row]]] = set()

        def fly(work: Coroutine[Any, Any, list[Row]]) -> None:
            task = asyncio.create_task(work)
            flying.add(task)
            task.add_done_callback(landed.put_nowait)

        async def launch() -> None:
            while not stop.is_set():
                group = await asyncio.to_thread(lambda: list(islice(paths, self.group)))
                if not group:
                    return
                for _ in group:
                    await free.acquire()
                fly(self._quick(group, fly, processes))

        launching = asyncio.create_task(launch())
        launching.add_done_callback(landed.put_nowait)
        launched = False
        try:
            while flying or not launched:
                task = await landed.get()
                if task is launching:
                    launching.result()
                    launched = True
                    continue
                flying.discard(task)
                for row in task.result():
                    free.release()
                    yield row
        finally:
            for task in (launching, *flying):
                task.cancel()

    async def _quick(
        self, paths: Sequence[str], fly: Fly, processes: asyncio.Semaphore
    ) -> list[Row]:
        """Rows of the files that are little work; the others fly on by themselves."""
        loop = asyncio.get_running_loop()
        rows: list[Row] = []
        inputs: dict[str, Pixels] = {}
        for path, found in await loop.run_in_executor(self.threads, self._prepare, paths):
            if found is None:
                fly(self._slow(path, processes))
            elif isinstance(found, ServiceError):
                rows.append(unreadable(path, found))
            else:
                inputs[path] = found
        return rows + (await self._answered(inputs) if inputs else [])

    def _prepare(self, paths: Sequence[str]) -> list[tuple[str, Pixels | ServiceError | None]]:
        """Inputs of the network, errors, or None for what has to be decoded elsewhere."""
        rule = self.model.manifest.preprocessing
        found: list[tuple[str, Pixels | ServiceError | None]] = []
        for path in paths:
            try:
                content = self.read(path)
                image = self.preparer.prepare_here(content, rule)
                found.append((path, None if image is None else image.pixels))
            except OutOfMemory:
                found.append((path, None))
            except ServiceError as exc:
                found.append((path, exc))
        return found

    async def _slow(self, path: str, processes: asyncio.Semaphore) -> list[Row]:
        try:
            async with processes:  # bytes of files that wait take memory
                pixels = await self._decoded(path)
        except ServiceError as exc:
            return [unreadable(path, exc)]
        return await self._answered({path: pixels})

    async def _decoded(self, path: str) -> Pixels:
        loop = asyncio.get_running_loop()
        rule = self.model.manifest.preprocessing
        content = await loop.run_in_executor(self.threads, self.read, path)
        for attempt in count(1):
            try:
                (image,) = await self.preparer.prepare([content], rule, math.inf)
                break
            except OutOfMemory as exc:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(exc.retry_after_s or 0)
        return image.pixels

    async def _answered(self, inputs: Mapping[str, Pixels]) -> list[Row]:
        """Rows of inputs [height, width, 3] by path. Raises what is wrong with the model."""
        names = self.columns.explain
        batcher: Batcher[Pixels, Any] = self.model.explainer if names else self.model.classifier
        futures = batcher.submit(list(inputs.values()), names or None)
        await _all_done(futures)
        rows = []
        for path, future in zip(inputs, futures, strict=True):
            value = future.result().value
            outputs: Mapping[str, Float32Array] = value if names else {"logits": value}
            rows.append(self.columns.answered(path, outputs))
        return rows

    @property
    def _batch(self) -> int:
        engine = self.model.engine
        return engine.max_explain_batch_size if self.columns.explain else engine.plan.batch


@contextmanager
def opened(
    settings: BulkSettings, model: ServedModel, columns: Columns, read: Read
) -> Iterator[Flight]:
    """With a decoder as the settings say, whose threads and processes end with the block."""
    threads = ThreadPoolExecutor(settings.decode_threads, "decode")
    preparer = Preparer(decode_options(settings), threads, max(2, settings.decode_threads))
    try:
        yield Flight(model, preparer, columns, threads, settings.decode_threads, read)
    finally:
        preparer.close()
        threads.shutdown(cancel_futures=True)


async def _all_done(futures: Sequence[Future[Any]]) -> None:
    """Wait for threads to finish all; the event loop wakes once, not once for each."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    left = count(len(futures) - 1, -1)

    def note(_: Future[Any]) -> None:
        if next(left) == 0:
            with suppress(RuntimeError):  # the loop has ended, because the run has failed
                loop.call_soon_threadsafe(ended.set)

    for future in futures:
        future.add_done_callback(note)
    await ended.wait()
