"""`make bench`: the exported graphs against PyTorch, side by side in one run, as ratios.

Prints a table and one JSON line a row. Contenders take turns, and each figure is the
median of its turns, so that a busy moment of the machine spoils no comparison.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from export.verify import normalize, sample_images
from models import checkpoint
from service import similarity
from service.cpus import available_cpus
from service.engine import Engine, EngineOptions
from tests.server import ROOT

_BATCHES = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--model", default="deepvit16-cifar10")
    parser.add_argument("--weights", type=Path, help="the checkpoint; the bundled one if left out")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    weights = options.weights or ROOT / "models" / "zoo" / f"{options.model}.safetensors"
    network = checkpoint.load(weights).network()
    versions = (ROOT / "model_repository" / options.model).glob("[0-9]*")
    latest = max(versions, key=lambda folder: int(folder.name))
    engine = Engine(latest, EngineOptions(intra_op_threads=available_cpus()))
    torch.set_num_threads(available_cpus())
    rule = engine.manifest.preprocessing
    print(f"{options.model}, {available_cpus()} of {os.cpu_count()} processors")
    for batch in _BATCHES:
        images = sample_images(batch, rule.size)
        normalized = normalize(images, rule)
        items = list(images)
        contenders: dict[str, Callable[[], object]] = {
            "PyTorch eager": lambda normalized=normalized: network(normalized),  # type: ignore[misc]
            "classifier": lambda items=items: engine.classify(items),  # type: ignore[misc]
        }
        if batch <= engine.manifest.max_explain_batch_size:
            for name, outputs in _questions(engine).items():
                contenders[f"explain: {name}"] = (
                    lambda items=items, outputs=outputs: engine.explain(items, outputs)  # type: ignore[misc]
                )
        _report(options.model, batch, _medians(contenders, options.rounds))


def _questions(engine: Engine) -> dict[str, tuple[str, ...]]:
    """Explain outputs as the service asks for them."""
    manifest = engine.manifest
    return {
        "class token rows": (manifest.output("class_rows", "reattention").name,),
        "one map": (manifest.output("map", "reattention", manifest.config.depth - 1).name,),
        "similarity": tuple(similarity.outputs(manifest, "reattention").values()),
    }


@torch.inference_mode()
def _medians(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each contender; one round to warm up, then in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _report(model: str, batch: int, medians: dict[str, float]) -> None:
    baseline = medians["PyTorch eager"]
    for name, seconds in medians.items():
        row = {
            "model": model,
            "batch": batch,
            "what": name,
            "ms": round(seconds * 1e3, 2),
            "images_per_s": round(batch / seconds, 1),
            "speed_vs_pytorch": round(baseline / seconds, 2),
        }
        print(f"  batch {batch:3}  {name:26} {row['ms']:9} ms  {row['speed_vs_pytorch']:5}x")
        print(json.dumps(row))


if __name__ == "__main__":
    main()
