"""Bulk: files to Parquet, and the bare graph at the same batch and on the same threads, in turns.

The files are JPEGs of the size that the network takes, so that decoding is not the limit.
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from models.arrays import Pixels
from service.bulk.model import load_model
from service.bulk.run import answer
from service.bulk.settings import BulkSettings
from service.inference.served import ServedModel
from tests.bench import models
from tests.bench.record import Record, table
from tests.support.server import ROOT

_ROUNDS = 5
_SECONDS = 20.0  # about how long a turn takes
_PHOTOS = 200  # different files; the others are copies


def run(name: str, rounds: int = _ROUNDS, seconds: float = _SECONDS) -> None:
    """Print and record images a second of both, and the share that bulk has of the bare graph's."""
    record = Record("bulk", name)
    per_s: dict[str, list[float]] = {"bare graph": [], "bulk": []}
    with tempfile.TemporaryDirectory() as place:
        model = load_model(_settings(name, Path(place), "answers"))
        images = _pictures(model)
        count = round(_graph_per_s(model, images, seconds / 4) * seconds)
        _write(images, Path(place, "pictures"), count)
        for turn in range(rounds):
            per_s["bare graph"].append(_graph_per_s(model, images, seconds))
            started = time.perf_counter()
            answer(_settings(name, Path(place), f"answers-{turn}"), model)
            per_s["bulk"].append(count / (time.perf_counter() - started))
        model.stop()
    sizes = model.classifier.counts.batch_sizes
    mean_batch = sum(size * times for size, times in sizes.items()) / sizes.total()
    shares = [ours / bare for ours, bare in zip(per_s["bulk"], per_s["bare graph"], strict=True)]
    rows = [[what, round(statistics.median(found), 1)] for what, found in per_s.items()]
    for what, found in rows:
        record.add(what=what, per_s=found, **model.engine.plan._asdict(), files=count)
    share = round(statistics.median(shares), 3)
    record.add(what="bulk of bare graph", share=share, mean_batch=round(mean_batch, 2))
    print(f"\n{name}, {count} files, {model.engine.plan}, mean batch {mean_batch:.2f}\n")
    print(*table(["", "images/s"], rows), sep="\n")
    print(f"bulk has {share} of the bare graph's speed", flush=True)


def _settings(name: str, place: Path, output: str) -> BulkSettings:
    return BulkSettings(  # type: ignore[call-arg]  # pydantic's plugin would know the defaults
        source=str(place / "pictures"),
        output=str(place / output),
        model=name,
        model_repository=models.exported(name).parents[1],
    )


def _graph_per_s(model: ServedModel, images: list[Pixels], seconds: float) -> float:
    """Images a second of the engine alone, as many batches at once as its plan says."""
    plan, ends = model.engine.plan, time.perf_counter() + seconds
    batch = (images * plan.batch)[: plan.batch]

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < ends:
            done += len(model.engine.classify(batch))  # type: ignore[arg-type]
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(plan.instances) as pool:
        done = sum(pool.map(work, range(plan.instances)))
    return done / (time.perf_counter() - started)


def _pictures(model: ServedModel) -> list[Pixels]:
    """Crops of a photograph at the input size."""
    height, width = model.manifest.preprocessing.size
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((width + _PHOTOS, height)))
    return [np.ascontiguousarray(pixels[:, left : left + width]) for left in range(_PHOTOS)]


def _write(images: list[Pixels], folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number % 1000:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number % len(images)]).save(path, quality=90)
