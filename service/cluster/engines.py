"""The deployment of engines: a model repository whose queues merge the batches of all fronts."""

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from models.arrays import Pixels
from models.manifest import Manifest
from service.assembly import local_engines
from service.cluster import wire
from service.cluster.replica import replica_name
from service.cluster.settings import ClusterSettings
from service.errors import UnknownModel
from service.inference.arrivals import Arrivals
from service.inference.batching import Batcher, Done
from service.inference.repository import ModelRepository
from service.inference.served import QueueOptions, ServedModel
from service.telemetry import log
from service.telemetry.metrics import EngineMetrics

_UNBOUNDED = 2**31  # fronts bound what they have under way


@dataclass(frozen=True)
class Described:
    """What a front has to know of a version that an engine has loaded."""

    manifest: Manifest
    provider: str
    precision: str
    attention: str
    threads: int
    max_batch_size: int
    max_explain_batch_size: int


class Engines:
    """One engine; Ray Serve starts as many as the settings say."""

    make_engines = staticmethod(local_engines)

    async def __init__(self, settings: ClusterSettings) -> None:  # type: ignore[misc]  # Ray awaits it
        """Raises `StartupError`."""
        log.configure(settings.log_format)
        self._timeout_s = settings.request_timeout_s
        self._arrivals = Arrivals()
        self._models = await asyncio.to_thread(
            ModelRepository,
            settings.model_repository,
            self.make_engines(settings),
            QueueOptions(_UNBOUNDED),
            default_model=settings.default_model,
            versions=settings.served_versions,
            require_all=settings.require_all_models,
        )
        # The version before stays, because fronts go over to a new one at different moments.
        self._models.versions += 1
        self._metrics = EngineMetrics(self._models)

    async def prepare(self, name: str, version: int) -> Described:
        """Load a version as the folder holds it now. Raises `UnknownModel` or `LoadFailed`."""
        model = await self._models.ensure(name, version)
        engine = model.engine
        return Described(
            manifest=model.manifest,
            provider=engine.provider,
            precision=engine.precision,
            attention=engine.attention,
            threads=engine.plan.threads,
            max_batch_size=engine.max_batch_size,
            max_explain_batch_size=engine.max_explain_batch_size,
        )

    async def forget(self, name: str) -> None:
        """Unload a model, if it is loaded."""
        if self._models.served_versions(name):
            await self._models.unload(name)

    async def classify(self, name: str, version: int, images: bytes) -> bytes:
        """Packed inputs to packed logits."""
        await self._find(name, version)
        with self._models.use(name, version) as model:
            return wire.pack_logits(await self._run(model, model.classifier, images))

    async def explain(
        self, name: str, version: int, images: bytes, names: tuple[str, ...]
    ) -> wire.PackedOutputs:
        """Packed inputs to the packed outputs of these names."""
        await self._find(name, version)
        with self._models.use(name, version) as model:
            await model.open_explainer(names)
            return wire.pack_outputs(await self._run(model, model.explainer, images, names))

    async def metrics(self) -> tuple[str, bytes]:
        """The name of this process, and the text of a scrape."""
        return replica_name(), self._metrics.render()

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces an engine of which a thread has died."""
        if not all(model.alive for model in self._models):
            raise RuntimeError("a batch thread is dead")

    def __del__(self) -> None:
        if hasattr(self, "_models"):
            self._models.stop(self._timeout_s)

    async def _find(self, name: str, version: int) -> ServedModel:
        try:
            return self._models.get(name, version)
        except UnknownModel:
            await self._models.load(name)
            return self._models.get(name, version)

    async def _run(
        self,
        model: ServedModel,
        batcher: "Batcher[Pixels, Any]",
        images: bytes,
        key: Hashable = None,
    ) -> list[Any]:
        """One result an image. Cancelled, it takes what is queued out of the queue."""
        inputs = wire.unpack_images(images, model.manifest.preprocessing.size)
        done: list[Done[Any]] = await self._arrivals.of(
            batcher.submit(inputs, key, time.perf_counter() + self._timeout_s)
        )
        return [one.value for one in done]
