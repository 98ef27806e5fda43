"""A repository of engines that are held, fail or hang by hand, and what of it is monitored."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.inference.plan import Plan
from service.inference.repository import ModelRepository
from service.inference.served import QueueOptions, ServedModel
from tests.conftest import DEEPVIT
from tests.support import small

PATIENCE_S = 60


def manifest_of(name: str = DEEPVIT) -> Manifest:
    return Manifest.read((small.REPOSITORY / name / "1" / "manifest.json").read_text())


def without_reference(name: str = DEEPVIT) -> Manifest:
    return manifest_of(name).model_copy(update={"reference": None})


class HandEngine:
    """Every output is ones times the brightness of the image, from 0 to 1.

    Explaining raises `failure` if there is one, and waits while `free` is not set.
    """

    max_batch_size = max_explain_batch_size = 8
    provider = precision = attention = "none"

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.read((folder / "manifest.json").read_text())
        self.plan = Plan(instances=1, threads=1, batch=8)
        self.explained = 0
        self.openings: dict[tuple[str, ...], Callable[[], object]] = {}
        self.failure: Exception | None = None
        self.classifying, self.explaining = threading.Event(), threading.Event()
        self.free, self.free_to_classify = threading.Event(), threading.Event()
        self.free.set()
        self.free_to_classify.set()

    def warm_up(self) -> None:
        pass

    def opening(self, names: Sequence[str]) -> Callable[[], object] | None:
        return self.openings.get(tuple(names))

    def classify(self, images: Sequence[Pixels]) -> Sequence[Float32Array]:
        self.classifying.set()
        assert self.free_to_classify.wait(PATIENCE_S)
        return [self._filled("logits", image) for image in images]

    def explain(
        self, images: Sequence[Pixels], names: Sequence[str]
    ) -> Sequence[Mapping[str, Float32Array]]:
        self.explained += 1
        self.explaining.set()
        assert self.free.wait(PATIENCE_S)
        if self.failure:
            raise self.failure
        return [{name: self._filled(name, image) for name in names} for image in images]

    def _filled(self, name: str, image: Pixels) -> Float32Array:
        shapes = {output.name: output.shape for output in self.manifest.outputs}
        shape = shapes.get(name, (len(self.manifest.labels),))
        return np.full(shape, image.mean() / 255, np.float32)


@contextmanager
def hand_models() -> Iterator[tuple[ModelRepository, ServedModel, Any]]:
    """The repository, the small DeepViT in it and its engine."""
    models = ModelRepository(small.REPOSITORY, HandEngine, QueueOptions(max_images=8))
    try:
        yield models, models.get(DEEPVIT), models.get(DEEPVIT).engine
    finally:
        for one in models:
            one.engine.free.set()  # type: ignore[attr-defined]
            one.engine.free_to_classify.set()  # type: ignore[attr-defined]
        models.stop()


def image(value: int = 128) -> Pixels:
    return np.full((32, 32, 3), value, np.uint8)
