"""Files in flight: from paths to rows, with enough of them under way that batches are full.

Between a path and its row a file is read and decoded, a few at a time because bytes take memory,
and then waits as an input of the network for a batch. At most `window` files are anywhere between.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from models.arrays import Float32Array, Pixels
from service.bulk import files
from service.bulk.columns import Columns, Row, unreadable
from service.errors import OutOfMemory, ServiceError
from service.imaging.preparation import Prepared
from service.imaging.preparer import Preparer
from service.inference.batching import Batcher
from service.inference.served import ServedModel

_BATCHES = 3  # one that runs, and two that wait, so that no thread takes less than a full one
_PATHS_AT_ONCE = 64
_ATTEMPTS = 3  # to decode when memory is short, which may pass


@dataclass(frozen=True)
class Flight:
    model: ServedModel
    preparer: Preparer
    columns: Columns
    threads: Executor  # that read and decode
    decodes: int  # files that are read or decoded at once
    max_file_bytes: int

    @property
    def window(self) -> int:
        engine = self.model.engine
        batch = engine.max_explain_batch_size if self.columns.explain else engine.plan.batch
        return self.decodes + _BATCHES * batch * engine.plan.instances

    async def rows(self, paths: Iterator[str], stop: asyncio.Event) -> AsyncIterator[Row]:
        """A row for each path, in the order in which they are done, which is nearly that of paths.

        Once `stop` is set no more files are begun. Raises what is wrong with the list of paths or
        with the model, but for nothing that is wrong with a file.
        """
        landed: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        free = asyncio.Semaphore(self.window)
        decoding = asyncio.Semaphore(self.decodes)
        flying: set[asyncio.Task[Row]] = set()

        async def launch() -> int:
            count = 0
            async for path in _taken(paths):
                await free.acquire()
                if stop.is_set():
                    break
                task = asyncio.create_task(self._row(path, decoding))
                flying.add(task)
                task.add_done_callback(landed.put_nowait)
                count += 1
            return count

        launching = asyncio.create_task(launch())
        launching.add_done_callback(landed.put_nowait)
        done, all_of_them = 0, math.inf
        try:
            while done < all_of_them:
                task = await landed.get()
                if task is launching:
                    all_of_them = launching.result()
                    continue
                flying.discard(task)
                free.release()
                done += 1
                yield task.result()
        finally:
            for task in (launching, *flying):
                task.cancel()

    async def _row(self, path: str, decoding: asyncio.Semaphore) -> Row:
        try:
            async with decoding:
                image = await self._decoded(path)
        except ServiceError as exc:
            return unreadable(path, exc)
        return self.columns.answered(path, await self._outputs(image.pixels))

    async def _decoded(self, path: str) -> Prepared:
        loop = asyncio.get_running_loop()
        rule = self.model.manifest.preprocessing
        content = await loop.run_in_executor(self.threads, files.read, path, self.max_file_bytes)
        for attempt in range(_ATTEMPTS):
            try:
                (image,) = await self.preparer.prepare([content], rule, math.inf)
                return image
            except OutOfMemory as exc:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(exc.retry_after_s or 0)
        raise AssertionError

    async def _outputs(self, pixels: Pixels) -> Mapping[str, Float32Array]:
        names = self.columns.explain
        batcher: Batcher[Pixels, Any] = self.model.explainer if names else self.model.classifier
        (future,) = batcher.submit([pixels], names or None)
        done = await asyncio.wrap_future(future)
        return done.value if names else {"logits": done.value}


async def _taken(paths: Iterator[str]) -> AsyncIterator[str]:
    """The paths, some at a time, because finding them may wait for a disk."""
    while some := await asyncio.to_thread(lambda: list(islice(paths, _PATHS_AT_ONCE))):
        for path in some:
            yield path
