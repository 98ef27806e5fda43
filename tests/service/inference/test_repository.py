"""The repository serves any engine: here one that is a few lines of this test, without ONNX."""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.errors import InferenceFailed, LoadFailed, StartupError, Stopped, UnknownModel
from service.inference.plan import Plan
from service.inference.repository import ModelRepository
from service.inference.served import QueueOptions
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

    def opening(self, names: Sequence[str]) -> None:
        pass

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
        with pytest.raises(LoadFailed, match="the other process is away"):
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


class Fragile(Brightness):
    """Fails as a model called `broken` does: with an error of whatever library ran it."""

    def warm_up(self) -> None:
        super().warm_up()
        if self.manifest.name == "broken":
            raise ZeroDivisionError("in the model")


def add(repository: Path, folder: Path, name: str) -> None:
    """A model of this name: as far as the engine above can tell, its manifest."""
    text = (repository / TINY / "1" / "manifest.json").read_text()
    (folder / name / "1").mkdir(parents=True)
    renamed = text.replace(f'"name": "{TINY}"', f'"name": "{name}"', 1)
    (folder / name / "1" / "manifest.json").write_text(renamed)


def served(models: ModelRepository) -> list[str]:
    return sorted(model.manifest.name for model in models)


def test_one_broken_model_does_not_stop_a_poll(tiny_repository: Path, tmp_path: Path) -> None:
    async def serve() -> None:
        for name in ("first", "last"):
            add(tiny_repository, tmp_path, name)
        models = ModelRepository(tmp_path, Fragile, QueueOptions(max_images=4))
        for name in ("after", "broken", "zebra"):
            add(tiny_repository, tmp_path, name)
        shutil.rmtree(tmp_path / "first")
        await models.poll()
        assert served(models) == ["after", "last", "zebra"]
        (broken,) = (one for one in await models.index() if one.name == "broken")
        assert broken.reason == "broken/1 cannot be loaded: in the model"
        shutil.rmtree(tmp_path / "broken")
        await models.poll()
        assert models.failures == {}
        models.stop()

    asyncio.run(serve())


def test_a_start_with_a_broken_model_is_refused_unless_not_all_are_required(
    tiny_repository: Path, tmp_path: Path
) -> None:
    def start(**options: Any) -> ModelRepository:
        return ModelRepository(tmp_path, Fragile, QueueOptions(max_images=4), **options)

    add(tiny_repository, tmp_path, "broken")
    with pytest.raises(StartupError, match="can be loaded"):
        start(require_all=False)
    add(tiny_repository, tmp_path, "sound")
    with pytest.raises(StartupError, match="broken/1 cannot be loaded: in the model"):
        start()
    with pytest.raises(StartupError, match="broken/1 cannot be loaded: in the model"):
        start(require_all=False, default_model="broken")
    models = start(require_all=False)
    assert served(models) == ["sound"]
    assert models.failures.keys() == {"broken"}
    models.stop()


def test_a_repository_that_is_away_unloads_nothing(tiny_repository: Path, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"

    async def serve() -> None:
        for name in ("one", "two"):
            add(tiny_repository, folder, name)
        models = ModelRepository(folder, Brightness, QueueOptions(max_images=4))
        before = list(models)

        async def is_away() -> None:
            await models.poll()
            assert list(models) == before
            assert [one.name for one in await models.index() if one.ready] == ["one", "two"]

        folder.rename(elsewhere)
        await is_away()
        folder.mkdir()  # where something else was mounted
        await is_away()
        folder.rmdir()
        folder.write_text("")
        await is_away()
        folder.unlink()
        elsewhere.rename(folder)
        shutil.rmtree(folder / "one")
        await models.poll()
        assert served(models) == ["two"]
        models.stop()

    asyncio.run(serve())


def test_a_request_keeps_the_engine_that_it_began_with(
    tiny_repository: Path, tmp_path: Path
) -> None:
    engines: list[Brightness] = []

    def make_engine(folder: Path) -> Brightness:
        engines.append(Brightness(folder))
        return engines[-1]

    async def serve() -> None:
        add(tiny_repository, tmp_path, "model")
        models = ModelRepository(tmp_path, make_engine, QueueOptions(max_images=4))
        await models.load("model")
        await models.poll()
        assert len(engines) == 1  # nothing has changed
        os.utime(tmp_path / "model" / "1" / "manifest.json", ns=(1, 1))
        with models.use("model") as before:
            await models.poll()
            assert models.get("model").engine is engines[1]
            (answer,) = before.classifier.submit([image(5)])
            assert answer.result(PATIENCE_S).value == [5]
            assert before.engine is engines[0]
        await asyncio.gather(*models._retiring)
        assert not before.alive
        models.stop()

    asyncio.run(serve())


def test_what_keeps_failing_is_tried_less_and_less_often_until_it_changes(
    tiny_repository: Path, tmp_path: Path
) -> None:
    tried: list[Path] = []

    def make_engine(folder: Path) -> Brightness:
        if folder.parent.name == "broken":
            tried.append(folder)
            raise MemoryError
        return Brightness(folder)

    async def serve() -> None:
        add(tiny_repository, tmp_path, "sound")
        models = ModelRepository(tmp_path, make_engine, QueueOptions(max_images=4))
        add(tiny_repository, tmp_path, "broken")
        for _ in range(40):
            await models.poll()
        assert 3 < len(tried) < 10
        before = len(tried)
        (tmp_path / "broken" / "1" / "more").write_text("")
        await models.poll()
        assert len(tried) == before + 1
        models.stop()

    asyncio.run(serve())
