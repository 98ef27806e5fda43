"""Which models are served: the highest version of each folder in the model repository."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.manifest import Manifest
from models.preprocess import Pixels
from service.batching import Batcher
from service.engine import Array, Engine, EngineOptions
from service.errors import StartupError, UnknownModel
from service.statistics import Statistics


@dataclass(frozen=True)
class ServedModel:
    """A loaded, warmed model behind its two queues."""

    manifest: Manifest
    engine: Engine
    classifier: "Batcher[Pixels, Array]"  # key: none
    explainer: "Batcher[Pixels, dict[str, Array]]"  # key: names of the outputs asked for
    statistics: Statistics

    @property
    def alive(self) -> bool:
        return self.classifier.alive and self.explainer.alive

    def stop(self) -> None:
        self.classifier.stop()
        self.explainer.stop()


class ModelRepository:
    """Every model of a folder, loaded and warmed. Raises `StartupError`."""

    def __init__(
        self,
        folder: Path,
        options: EngineOptions,
        *,
        max_queue_images: int,
        default_model: str | None = None,
    ) -> None:
        versions = dict(_latest_versions(folder))
        if not versions:
            raise StartupError(f"no model in {folder.absolute()}: export one with python -m export")
        self.default = default_model or next(iter(versions))
        if self.default not in versions:
            raise StartupError(f"no model {self.default} in {folder.absolute()}")
        self._served: dict[str, ServedModel] = {}
        try:
            for name, version in versions.items():
                self._served[name] = _serve(version, options, max_queue_images)
        except StartupError:
            self.stop()
            raise

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    def get(self, name: str | None) -> ServedModel:
        """A model by name, or the default one. Raises `UnknownModel`."""
        try:
            return self._served[name or self.default]
        except KeyError:
            raise UnknownModel(f"no model {name}; served: {', '.join(self._served)}") from None

    def stop(self) -> None:
        """Finish queued work and end every thread."""
        for model in self:
            model.stop()


def _latest_versions(folder: Path) -> Iterator[tuple[str, Path]]:
    for model in sorted(folder.glob("*")):
        versions = [entry for entry in model.glob("*") if entry.name.isdecimal()]
        if versions and not model.name.startswith("."):
            yield model.name, max(versions, key=lambda entry: int(entry.name))


def _serve(version: Path, options: EngineOptions, max_queue_images: int) -> ServedModel:
    engine = Engine(version, options)
    manifest = engine.manifest
    if manifest.name != version.parent.name or str(manifest.version) != version.name:
        raise StartupError(f"{version} holds version {manifest.version} of {manifest.name}")
    engine.warm_up()
    statistics = Statistics()

    def classify(images: Sequence[Pixels], _: Hashable) -> Sequence[Array]:
        with statistics.execution(len(images)):
            return engine.classify(images)

    def explain(images: Sequence[Pixels], names: Hashable) -> Sequence[dict[str, Array]]:
        assert isinstance(names, tuple)
        with statistics.execution(len(images)):
            return engine.explain(images, names)

    return ServedModel(
        manifest=manifest,
        engine=engine,
        classifier=Batcher(
            classify,
            max_batch_size=engine.max_batch_size,
            max_queue_items=max_queue_images,
            name=f"classify {manifest.name}",
        ),
        explainer=Batcher(
            explain,
            max_batch_size=min(options.max_batch_size, manifest.max_explain_batch_size),
            max_queue_items=max_queue_images,
            name=f"explain {manifest.name}",
        ),
        statistics=statistics,
    )
