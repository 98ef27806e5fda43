"""Scaling: the time of the classifier by batch size, input size and number of blocks.

The part `serving` measures the number of clients.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.config import ARCHITECTURES
from service.inference.cpus import available_cpus
from tests.bench import models
from tests.bench.record import Record, table
from tests.bench.timing import Contender, in_turns

_LARGE = "deepvit_patch16_224_re_attn_{}b"
DEPTHS = tuple(_LARGE.format(depth) for depth in (16, 24, 32))
RESOLUTIONS = ("deepvit_L", "deepvit_L_384")
_BATCHES = (1, 2, 4, 8, 16, 32)
_ROUNDS = 5
_BUDGET_S = 60


def run(budget_s: float = _BUDGET_S) -> None:
    """Print and record the time of an image."""
    record = Record("scaling", "classifiers")
    batched = _contenders(DEPTHS[0], _BATCHES)
    single = {
        name: _contenders(name, (1,))[f"{name}, batch 1"] for name in (*DEPTHS[1:], *RESOLUTIONS)
    }
    for title, contenders in (("batch", batched), ("depth and resolution", single)):
        rows: list[list[object]] = []
        for what, seconds in in_turns(contenders, _ROUNDS, budget_s).items():
            name, _, batch = what.partition(", batch ")
            per_image = round(seconds / int(batch or 1) * 1e3, 1)
            config = ARCHITECTURES[name].config
            figures = {"batch": int(batch or 1), "px": config.img_size, "blocks": config.depth}
            record.add(architecture=name, **figures, ms_per_image=per_image)
            rows.append([name, *figures.values(), per_image])
        print(f"\n{title}\n")
        print(*table(["", "batch", "px", "blocks", "ms an image"], rows), sep="\n", flush=True)


def _contenders(name: str, batches: Sequence[int]) -> dict[str, Contender]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    session = ort.InferenceSession(_classifier(name), options, providers=["CPUExecutionProvider"])
    size = ARCHITECTURES[name].config.img_size
    return {
        f"{name}, batch {batch}": partial(
            session.run, None, {"images": np.zeros((batch, size, size, 3), np.uint8)}
        )
        for batch in batches
    }


def _classifier(name: str) -> Path:
    """The classifier of an architecture with random weights, without its slow explain graph."""
    folder = models.CACHE / "classifiers" / name
    if not (folder / "model.onnx").exists():
        from export import to_onnx
        from export.fold import FoldedDeepViT
        from export.graphs import Classifier
        from tests.support.networks import random_network

        architecture = ARCHITECTURES[name]
        network = random_network(architecture.config)
        folded = FoldedDeepViT(network, architecture.preprocessing).eval()
        graph = to_onnx.trace(Classifier(folded), architecture.config.img_size, ["logits"])
        folder.mkdir(parents=True, exist_ok=True)
        to_onnx.save_weights([graph], folder)
        to_onnx.save_graph(graph, folder / "model.onnx")
    return folder / "model.onnx"
