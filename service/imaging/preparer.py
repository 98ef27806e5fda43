"""Where uploads are prepared: here if that is little work, else in processes that bound it.

An image can cost its decoder gigabytes, minutes or its life, whatever its header promises. So only
JPEGs, PNGs and lossy WebPs of ordinary structure and moderate size are decoded in the service's own
process, on a pool of threads. All others go to a few processes, each with limits on its memory and
time, which are started when they are first needed and replaced when they have ended.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack

from models.preprocess import Preprocessing
from service.errors import DeadlineExceeded, OutOfMemory, ServiceError, Stopped
from service.imaging.decoder import Decoder
from service.imaging.effort import Effort, effort
from service.imaging.preparation import Prepared, prepare, prepare_small
from service.imaging.process import DecodeOptions, DecodeProcess

# How long an image may still be decoded whose request has ended: less than another process takes
# to start.
_GRACE_S = 0.5


class Preparer:
    """Used from one event loop. `threads` run what is done in this process."""

    def __init__(self, options: DecodeOptions, threads: Executor, processes: int) -> None:
        self._options = options
        self._decoder = Decoder(options.max_pixels, options.reduced, options.formats)
        self._threads = threads
        self._free = asyncio.Semaphore(processes)
        # Images of unknown effort never take all processes.
        self._free_for_unknown = asyncio.Semaphore(max(1, processes - 1))
        self._idle: list[DecodeProcess] = []
        self._processes: set[DecodeProcess] = set()
        self._closed = False

    async def prepare(
        self, uploads: Sequence[bytes], rule: Preprocessing, deadline: float
    ) -> list[Prepared]:
        """Decode and preprocess all uploads until `deadline`, a time of `time.perf_counter`.

        Raises `DeadlineExceeded`, `NoImage`, `CorruptImage`, `UnsupportedMedia`, `ImageTooLarge`,
        `ImageTooCostly`, `OutOfMemory` or `Stopped`: one bad image fails all.
        """
        if len(uploads) == 1:
            # Requests that have arrived together are read before the first image is decoded: the
            # same code, run for one after the other, stays in the processor's cache.
            await asyncio.sleep(0)
            if small := prepare_small(self._decoder, uploads[0], rule):
                return [small]
        tasks = [
            asyncio.create_task(self._prepare_one(uploads, index, rule))
            for index in range(len(uploads))
        ]
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                return await asyncio.gather(*tasks)
        except TimeoutError as exc:
            raise DeadlineExceeded("decoding was not done by the deadline") from exc
        finally:
            for task in tasks:
                task.cancel()

    def prepare_here(self, upload: bytes, rule: Preprocessing) -> Prepared | None:
        """At once, on a thread of the caller's, if it is little work; None if it is more.

        Raises what is wrong with the upload, as `prepare` does, or `OutOfMemory`.
        """
        little = self._effort(upload) is Effort.LITTLE
        return prepare(self._decoder, upload, rule) if little else None

    def close(self) -> None:
        """End every process, whatever it does. Nothing is prepared in one from now on."""
        self._closed = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for process in self._idle:
            process.close()

    async def _prepare_one(
        self, uploads: Sequence[bytes], index: int, rule: Preprocessing
    ) -> Prepared:
        try:
            return await self._prepare(uploads[index], rule)
        except ServiceError as exc:
            if len(uploads) > 1:
                exc.detail = f"image {index + 1} of {len(uploads)}: {exc.detail}"
            raise

    async def _prepare(self, upload: bytes, rule: Preprocessing) -> Prepared:
        work = self._effort(upload)
        if work is Effort.LITTLE:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, prepare, self._decoder, upload, rule)
        async with AsyncExitStack() as turn:
            if work is Effort.UNKNOWN:
                await turn.enter_async_context(self._free_for_unknown)
            await turn.enter_async_context(self._free)
            task = asyncio.create_task(self._prepare_elsewhere(upload, rule, turn.pop_all()))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_GRACE_S, task.cancel)
            raise

    async def _prepare_elsewhere(
        self, upload: bytes, rule: Preprocessing, turn: AsyncExitStack
    ) -> Prepared:
        async with turn:
            process = self._take()
            try:
                return await process.prepare(upload, rule)
            except asyncio.CancelledError:
                process.kill()
                process.close()
                await asyncio.to_thread(process.wait)
                raise
            except OutOfMemory:
                self._check_open()  # the process may have been killed by `close`
                raise
            finally:
                if process.usable:
                    self._idle.append(process)
                else:
                    self._processes.discard(process)

    def _take(self) -> DecodeProcess:
        """A process that does nothing, started if there is none."""
        self._check_open()
        while self._idle:
            if (process := self._idle.pop()).usable:
                return process
            process.close()
            self._processes.discard(process)
        process = DecodeProcess(self._options)
        self._processes.add(process)
        return process

    def _effort(self, upload: bytes) -> Effort:
        """Refusing what no reader tries is little work, too."""
        return effort(upload) if self._decoder.tries(upload) else Effort.LITTLE

    def _check_open(self) -> None:
        if self._closed:
            raise Stopped("the server is shutting down")
