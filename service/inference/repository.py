"""Which models are served: the highest versions of each folder in the model repository.

A new version is loaded and warmed up while the old one serves, and then replaces it. The old one
stops once the requests that it has taken are answered.
"""

import asyncio
import hashlib
import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest, version_folders
from service.errors import LoadFailed, StartupError, UnknownModel
from service.inference.batch import Batch
from service.inference.batching import Batcher
from service.inference.engine import Engine, EngineMaker
from service.inference.statistics import Statistics

_logger = logging.getLogger(__name__)

# What clients are told; the reason itself has paths, and what libraries say.
_FAILED = "the newest version cannot be loaded; the server's log says why"


@dataclass(frozen=True)
class QueueOptions:
    max_images: int
    max_wait_s: float = 0.0


@dataclass(frozen=True)
class RepositoryEntry:
    """A version that is `ready`, or one that is not, for a reason.

    A model that has only just appeared in the folder has neither a version nor a reason.
    """

    name: str
    version: int | None = None
    ready: bool = False
    reason: str = ""


@dataclass(eq=False)
class ServedModel:
    """A version that is loaded and warmed up, behind its two queues."""

    manifest: Manifest
    engine: Engine
    classifier: "Batcher[Pixels, Float32Array]"  # key: none
    explainer: "Batcher[Pixels, Mapping[str, Float32Array]]"  # key: names of outputs
    statistics: Statistics
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
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()

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

    def stop(self, timeout_s: float | None = None) -> None:
        self.classifier.stop(timeout_s)
        self.explainer.stop(timeout_s)


class ModelRepository:
    """Every model in a folder. Used from the event loop; loading runs on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        make_engine: EngineMaker,
        queue: QueueOptions,
        *,
        default_model: str | None = None,
        versions: int = 1,
    ) -> None:
        """Load and warm up every model. Raises `StartupError` if one cannot be loaded."""
        self._folder = folder
        self._make_engine = make_engine
        self.queue = queue
        self.versions = versions  # the most that are served of each model
        self._served: dict[str, dict[int, ServedModel]] = {}  # highest version last
        self._failures: dict[str, str] = {}
        self._unloaded: dict[str, list[int]] = {}  # on request, so polling ignores them
        self._loading = ThreadPoolExecutor(1, "load")
        self._retiring: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        names = list(self._model_names())
        if not names:
            raise StartupError(f"no model in {folder.absolute()}: export one with python -m export")
        self.default = default_model or names[0]
        if self.default not in names:
            raise StartupError(f"no model {self.default} in {folder.absolute()}")
        try:
            for name in names:
                self._served[name] = {
                    number: self._load(path)
                    for number, path in self._highest_versions(name).items()
                }
        except StartupError:
            self.stop()
            raise

    def __iter__(self) -> Iterator[ServedModel]:
        """Every served version."""
        return (model for versions in self._served.values() for model in versions.values())

    @property
    def failures(self) -> dict[str, str]:
        """Why the newest load of a model failed, by name; the version before it still serves."""
        return dict(self._failures)

    def index(self) -> list[RepositoryEntry]:
        """Every served version, then the models in the folder that are not served."""
        entries = [
            RepositoryEntry(model.manifest.name, model.manifest.version, ready=True)
            for model in self
        ]
        entries += [RepositoryEntry(name, reason=_FAILED) for name in self._failures]
        others = set(self._model_names()) - self._served.keys() - self._failures.keys()
        entries += [
            RepositoryEntry(name, version, reason="unloaded")
            for name in sorted(others)
            for version in self._unloaded.get(name, ())
        ]
        new = sorted(others - self._unloaded.keys())
        return entries + [RepositoryEntry(name) for name in new]

    def get(self, name: str | None, version: int | None = None) -> ServedModel:
        """A version by name and number, by default the highest. Raises `UnknownModel`."""
        name = name or self.default
        versions = self._served.get(name)
        if not versions:
            raise UnknownModel(f"no model {name}; served: {', '.join(self._served)}")
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            served = ", ".join(map(str, versions))
            raise UnknownModel(f"no version {version} of {name}; served: {served}")
        return versions[version]

    def is_default(self, model: ServedModel) -> bool:
        """Whether requests that name no model get this one."""
        versions = self._served.get(self.default, {})
        return bool(versions) and model is versions[max(versions)]

    def served_versions(self, name: str) -> list[int]:
        """All versions of a model that are served, highest last."""
        return list(self._served.get(name, {}))

    @contextmanager
    def use(self, name: str | None, version: int | None = None) -> Iterator[ServedModel]:
        """A version, as `get` finds it, that is not stopped before the block ends."""
        model = self.get(name, version)
        model.requests += 1
        model.idle.clear()
        try:
            yield model
        finally:
            model.requests -= 1
            if not model.requests:
                model.idle.set()

    async def load(self, name: str) -> None:
        """Serve the versions of a model that the folder holds now.

        Those served so far stay until the new ones are warmed up, or for good if loading fails.
        Raises `UnknownModel` or `LoadFailed`.
        """
        async with self._lock:
            wanted = self._highest_versions(name)
            if not wanted:
                raise UnknownModel(f"no version of {name} in the model repository")
            self._unloaded.pop(name, None)
            serving = self._served.get(name, {})
            loaded: dict[int, ServedModel] = {}
            try:
                for number in wanted.keys() - serving.keys():
                    loop = asyncio.get_running_loop()
                    loaded[number] = await loop.run_in_executor(
                        self._loading, self._load, wanted[number]
                    )
            except StartupError as exc:
                for model in loaded.values():
                    model.stop()
                if self._failures.get(name) != exc.detail:  # polling repeats
                    _logger.error("loading %s failed: %s", name, exc.detail)
                self._failures[name] = exc.detail
                raise LoadFailed(f"{name}: {_FAILED}") from exc
            self._failures.pop(name, None)
            available = serving | loaded
            self._served[name] = {number: available[number] for number in sorted(wanted)}
            for number in serving.keys() - wanted.keys():
                self._retire(serving[number])

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that use it are still answered. Raises `UnknownModel`."""
        async with self._lock:
            if name not in self._served:
                raise UnknownModel(f"no model {name}; served: {', '.join(self._served)}")
            versions = self._served.pop(name)
            self._failures.pop(name, None)
            self._unloaded[name] = list(versions)
            for model in versions.values():
                self._retire(model)

    async def poll(self) -> None:
        """Load what has appeared in the folder, unload what has disappeared."""
        names = set(self._model_names())
        for name in names - self._unloaded.keys():
            if self._highest_versions(name).keys() != self._served.get(name, {}).keys():
                try:
                    await self.load(name)
                except LoadFailed:
                    continue  # logged; the versions served so far stay
        for name in self._served.keys() - names:
            await self.unload(name)
            self._unloaded.pop(name)

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish queued work and end every thread."""
        for model in self:
            model.stop(timeout_s)
        self._loading.shutdown(wait=False, cancel_futures=True)

    def _retire(self, model: ServedModel) -> None:
        async def when_idle() -> None:
            while model.requests:
                await model.idle.wait()
            await asyncio.to_thread(model.stop)

        task = asyncio.create_task(when_idle())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _model_names(self) -> Iterator[str]:
        for folder in sorted(self._folder.glob("*")):
            if not folder.name.startswith(".") and self._highest_versions(folder.name):
                yield folder.name

    def _highest_versions(self, name: str) -> dict[int, Path]:
        """The versions of a model that the folder says to serve."""
        if Path(name).name != name or name.startswith(".") or "\0" in name:
            return {}
        try:
            highest = version_folders(self._folder / name)[-self.versions :]
        except (OSError, UnicodeError):  # longer than names of files can be, or not to be encoded
            return {}
        return {int(version.name): version for version in highest}

    def _load(self, version: Path) -> ServedModel:
        engine = self._make_engine(version)
        manifest = engine.manifest
        if manifest.name != version.parent.name or str(manifest.version) != version.name:
            raise StartupError(f"{version} holds version {manifest.version} of {manifest.name}")
        engine.warm_up()
        statistics = Statistics()

        def classify(images: Batch[Pixels], _: Hashable) -> Sequence[Float32Array]:
            with statistics.execution(len(images)):
                return engine.classify(images)

        def explain(images: Batch[Pixels], names: Hashable) -> Sequence[Mapping[str, Float32Array]]:
            assert isinstance(names, tuple)
            with statistics.execution(len(images)):
                return engine.explain(images, names)

        queue = self.queue
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
                threads=engine.plan.instances,
                max_queue_items=queue.max_images,
                max_wait_s=queue.max_wait_s,
                name=f"explain {manifest.name} {manifest.version}",
            ),
            statistics=statistics,
        )
