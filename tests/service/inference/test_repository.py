"""The repository serves any engine: here one that is a few lines of this test, without ONNX."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.errors import InferenceFailed, LoadFailed, StartupError, Stopped, UnknownModel
from service.inference.plan import Plan
from service.inference.repository import ModelRepository, QueueOptions
from tests.conftest import TINY

PATIENCE_S = 30


class Brightness:
    """Answers every output with the mean of the image."""

    max_batch_size = 8
    max_explain_batch_size = 2
    provider = precision = attention = "none"

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        self.plan = Plan(instances=1, threads=1, batch=8)
        self.warm = False
        self.batches: list[int] = []

    def warm_up(self) -> None:
        self.warm = True

    def classify(self, images: Sequence[Pixels]) -> Sequence[Float32Array]:
        assert self.warm
        self.batches.append(len(images))
        return [image.mean(keepdims=True, dtype=np.float32).ravel() for image in images]

    def explain(
        self, images: Sequence[Pixels], names: Sequence[str]
    ) -> Sequence[Mapping[str, Float32Array]]:
        return [dict.fromkeys(names, logits) for logits in self.classify(images)]


def image(value: int) -> Pixels:
    return np.full((32, 32, 3), value, np.uint8)


def test_an_engine_without_onnx_is_loaded_answers_and_is_unloaded(tiny_repository: Path) -> None:
    engines: list[Brightness] = []

    def make_engine(folder: Path) -> Brightness:
        engines.append(Brightness(folder))
        return engines[-1]

    async def serve() -> None:
        models = ModelRepository(tiny_repository, make_engine, QueueOptions(max_images=4))
        with models.use(TINY) as model:
            answers = model.classifier.submit([image(7), image(9)])
            (explained,) = model.explainer.submit([image(3)], key=("logits", "a map"))
            assert [answer.result(PATIENCE_S).value for answer in answers] == [[7], [9]]
            assert explained.result(PATIENCE_S).value == {"logits": [3], "a map": [3]}
            assert (model.provider, model.attention) == ("none", "none")
            assert model.statistics.snapshot().executions == len(engines[0].batches)
            await models.unload(TINY)
            (last,) = model.classifier.submit([image(5)])  # this request still has the model
            assert last.result(PATIENCE_S).value == [5]
        with pytest.raises(UnknownModel):
            models.get(TINY)
        await asyncio.gather(*models._retiring)
        with pytest.raises(Stopped):
            model.classifier.submit([image(5)])
        await models.load(TINY)
        assert models.get(TINY).engine is engines[1]
        models.stop()

    asyncio.run(serve())
    assert len(engines) == 2


def test_an_engine_that_cannot_be_made_fails_the_load(tiny_repository: Path) -> None:
    def make_engine(folder: Path) -> Brightness:
        if made:
            raise StartupError("the other process is away")
        made.append(Brightness(folder))
        return made[-1]

    async def serve() -> None:
        models = ModelRepository(tiny_repository, make_engine, QueueOptions(max_images=4))
        await models.unload(TINY)
        with pytest.raises(LoadFailed, match="the server's log says why"):
            await models.load(TINY)
        assert models.failures == {TINY: "the other process is away"}
        models.stop()

    made: list[Brightness] = []
    asyncio.run(serve())


def test_an_engine_that_fails_fails_its_request(tiny_repository: Path) -> None:
    class Broken(Brightness):
        def classify(self, images: Sequence[Pixels]) -> Sequence[Float32Array]:
            raise InferenceFailed(f"no answer to {len(images)} image")

    models = ModelRepository(tiny_repository, Broken, QueueOptions(max_images=4))
    (answer,) = models.get(TINY).classifier.submit([image(1)])
    with pytest.raises(InferenceFailed, match="no answer to 1 image"):
        answer.result(PATIENCE_S)
    models.stop()
