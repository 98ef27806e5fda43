"""One version that is served: its engine behind two queues, from loading to its stop."""

import asyncio
import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.errors import ServiceError, StartupError
from service.inference.batch import Batch
from service.inference.batching import Batcher
from service.inference.engine import Engine, EngineMaker
from service.inference.folder import Found, Stamp
from service.inference.statistics import Statistics

_logger = logging.getLogger(__name__)

_TOLD_LENGTH = 500  # characters of an error that no module has translated


@dataclass(frozen=True)
class QueueOptions:
    max_images: int
    max_wait_s: float = 0.0


@dataclass(eq=False)
class ServedModel:
    """A version that is loaded and warmed up, behind its two queues."""

    manifest: Manifest
    engine: Engine
    classifier: "Batcher[Pixels, Float32Array]"  # key: none
    explainer: "Batcher[Pixels, Mapping[str, Float32Array]]"  # key: names of outputs
    statistics: Statistics
    stamp: Stamp  # of the files that it was loaded from
    requests: int = 0  # that are using it now
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alive(self) -> bool:
        return self.classifier.alive and self.explainer.alive

    @property
    def labels(self) -> tuple[str, str]:
        """Name and version, as metrics label them."""
        return self.manifest.name, str(self.manifest.version)

    @cached_property
    def digest(self) -> str:
        """Differs between exports, also of the same version. 64 hex digits."""
        return self.manifest.digest

    @property
    def provider(self) -> str:
        return self.engine.provider

    @property
    def precision(self) -> str:
        return self.engine.precision

    @property
    def attention(self) -> str:
        return self.engine.attention

    @property
    def queues(self) -> dict[str, "Batcher[Any, Any]"]:
        return {"classify": self.classifier, "explain": self.explainer}

    async def open_explainer(self, names: Sequence[str]) -> None:
        """Returns once the explainer's queue can give these outputs at once.

        What has to be opened is opened beside the queue, so that no other request waits for it.
        """
        with suppress(Exception):  # it will be raised again in the queue, which reports it
            if opening := self.engine.opening(names):
                await asyncio.to_thread(opening)

    def stop(self, timeout_s: float | None = None) -> None:
        self.classifier.stop(timeout_s)
        self.explainer.stop(timeout_s)


def load(found: Found, make_engine: EngineMaker, queue: QueueOptions) -> ServedModel:
    """Load and warm up a version. Raises `StartupError`, whatever is wrong with it."""
    try:
        return _load(found, make_engine, queue)
    except StartupError:
        raise
    except ServiceError as exc:
        raise StartupError(f"{found.path} cannot be loaded: {exc.detail}") from exc
    except Exception as exc:
        _logger.exception("loading %s failed in a way that is not expected", found.path)
        said = " ".join(str(exc).split())[:_TOLD_LENGTH] or type(exc).__name__
        raise StartupError(f"{found.path} cannot be loaded: {said}") from exc


def _load(found: Found, make_engine: EngineMaker, queue: QueueOptions) -> ServedModel:
    engine = make_engine(found.path)
    manifest = engine.manifest
    if (manifest.name, str(manifest.version)) != (found.path.parent.name, found.path.name):
        raise StartupError(f"{found.path} holds version {manifest.version} of {manifest.name}")
    engine.warm_up()
    statistics = Statistics()

    def classify(images: Batch[Pixels], _: Hashable) -> Sequence[Float32Array]:
        with statistics.execution(len(images)):
            return engine.classify(images)

    def explain(images: Batch[Pixels], names: Hashable) -> Sequence[Mapping[str, Float32Array]]:
        assert isinstance(names, tuple)
        with statistics.execution(len(images)):
            return engine.explain(images, names)

    return ServedModel(
        manifest=manifest,
        engine=engine,
        classifier=Batcher(
            classify,
            max_batch_size=engine.plan.batch,
            threads=engine.plan.instances,
            max_queue_items=queue.max_images,
            max_wait_s=queue.max_wait_s,
            name=f"classify {manifest.name} {manifest.version}",
        ),
        explainer=Batcher(
            explain,
            max_batch_size=engine.max_explain_batch_size,
            threads=engine.plan.explain_instances,
            max_queue_items=queue.max_images,
            max_wait_s=queue.max_wait_s,
            name=f"explain {manifest.name} {manifest.version}",
        ),
        statistics=statistics,
        stamp=found.stamp,
    )
