"""A run on Ray Data: engines as actors on the CPUs or GPUs of many machines.

The driver finds out which files are not done yet and cuts them into parts; an engine answers a part
and writes it under a name that its paths give it, so a part that is done twice is there once.
"""

import asyncio
import hashlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from service.bulk import addresses
from service.bulk.columns import Columns
from service.bulk.flight import opened
from service.bulk.model import load_model, read_manifest
from service.bulk.parts import Parts
from service.bulk.plan import plan_of
from service.bulk.progress import Progress
from service.bulk.seen import Seen
from service.bulk.settings import BulkSettings
from service.errors import EngineUnavailable, ServiceError, StartupError
from service.inference.cpus import available_cpus
from service.telemetry import log

_PART_IMAGES = 1000  # at the most, so that all engines have something to do


def run(settings: BulkSettings) -> int:
    """Exit status 0 once every file has its row, or 130 if the run was interrupted.

    Raises `StartupError`, an error of the model, or `EngineUnavailable`.
    """
    manifest = read_manifest(settings)
    columns = Columns(manifest, settings)
    progress = Progress()
    with closing(Seen()) as seen, closing(Parts(settings.output)) as parts:
        parts.begin(plan_of(settings, manifest, settings.precision, columns))
        progress.go_on_after(parts.done(), seen)
        todo = seen.new(addresses.paths(settings.source))
        interrupted = _answer(settings, todo, progress)
    progress.say(f"{settings.output}: {progress.summary}")
    if interrupted:
        progress.say("interrupted; the same command goes on from here")
        return 128 + signal.SIGINT
    return 0


def _answer(settings: BulkSettings, paths: Iterator[str], progress: Progress) -> bool:
    """Whether it was interrupted."""
    _start(settings)
    try:
        parts = list(_parts(paths, min(settings.part_images, _PART_IMAGES)))
        progress.files = progress.before + sum(count for _, count in parts)
        progress.start()
        if parts:
            data = ray.data.from_arrow_refs([reference for reference, _ in parts])
            answered = data.map_batches(
                _Engine,
                fn_constructor_args=(settings, str(Path.cwd())),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=settings.engines),
                num_cpus=settings.engine_cpus,
                num_gpus=settings.engine_gpus or None,
            )
            for row in answered.iter_rows():
                progress.add_part(row["files"], row["error"])
    except KeyboardInterrupt:
        return True
    except RayError as exc:
        raise _reason(exc) from exc
    finally:
        ray.shutdown()
    return False


def _start(settings: BulkSettings) -> None:
    here: dict[str, Any] = {}
    if settings.ray_address is None:
        needed = settings.engines * settings.engine_cpus
        here["num_cpus"] = max(available_cpus(), int(needed) + 1)
        here["_node_ip_address"] = "127.0.0.1"
    try:
        ray.init(
            settings.ray_address or "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **here,
        )
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise StartupError(f"Ray cannot be started or joined: {exc}") from exc
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set one of its own
    context = DataContext.get_current()
    context.enable_progress_bars = False


def _parts(paths: Iterator[str], files: int) -> Iterator[tuple["ray.ObjectRef", int]]:
    """Tables of paths in Ray's store, which puts on a disk what memory does not hold."""
    while some := list(islice(paths, files)):
        yield ray.put(pa.table({"path": some})), len(some)


class _Engine:
    """An actor: one engine, with a decoder of its own."""

    def __init__(self, settings: BulkSettings, folder: str) -> None:
        log.configure("text")
        with suppress(OSError):  # another machine need not have it
            os.chdir(folder)  # of the driver, for paths that begin nowhere
        self._settings = _with_cpus(settings)
        self._model = load_model(self._settings)
        self._columns = Columns(self._model.manifest, settings)
        self._parts = Parts(settings.output)

    def __call__(self, part: pa.Table) -> pa.Table:
        """Answer for a table of paths; how many files had which error."""
        paths = part["path"].to_pylist()
        rows = sorted(asyncio.run(self._rows(paths)), key=itemgetter("path"))
        name = hashlib.sha256("\0".join(paths).encode()).hexdigest()[:32]
        self._parts.write(name, self._columns.table(rows))
        counts = Counter(row.get("error") for row in rows)
        return pa.table(
            {
                "error": pa.array(list(counts), pa.string()),
                "files": pa.array(list(counts.values()), pa.int64()),
            }
        )

    async def _rows(self, paths: list[str]) -> list[dict[str, Any]]:
        read = partial(addresses.read, max_bytes=self._settings.max_file_bytes)
        with opened(self._settings, self._model, self._columns, read) as flight:
            return [row async for row in flight.rows(iter(paths), asyncio.Event())]


def _with_cpus(settings: BulkSettings) -> BulkSettings:
    """With the threads of an engine bounded by its CPUs, unless they were set."""
    threads = max(1, int(settings.engine_cpus))
    unset = {"intra_op_threads", "decode_threads"} - settings.model_fields_set
    return settings.model_copy(update=dict.fromkeys(unset, threads))


def _reason(error: RayError) -> ServiceError:
    """What an engine has raised, or that Ray has lost it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ServiceError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return EngineUnavailable(" ".join(str(error).split())[-500:])
