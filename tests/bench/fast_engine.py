"""A cluster whose engines take as long as an H100 would, and answer nothing: to load its fronts.

`python -m tests.bench.fast_engine` takes the flags of `python -m service.cluster`.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.cluster.__main__ import main
from service.cluster.engines import Engines
from service.cluster.settings import ClusterSettings
from service.inference.batch import Batch
from service.inference.engine import EngineMaker
from service.inference.plan import Plan

# Seconds of a batch of 32 blocks at 224 px in half precision (docs/benchmarks.md, "On an NVIDIA
# H100"), and images in it; between them it is as if time grew linearly.
_SECONDS = {1: 0.00138, 8: 0.00198, 32: 0.0048}


class FastEngine:
    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        self.plan = Plan(1, 1, max(_SECONDS))
        self.max_batch_size = self.max_explain_batch_size = max(_SECONDS)
        self.provider, self.precision, self.attention = "cuda", "fp16", "fused"

    def warm_up(self) -> None:
        pass

    def opening(self, names: Sequence[str]) -> None:
        pass

    def classify(self, images: Batch[Pixels]) -> Sequence[Float32Array]:
        time.sleep(np.interp(len(images), list(_SECONDS), list(_SECONDS.values())))
        return [np.zeros(len(self.manifest.labels), np.float32)] * len(images)

    def explain(
        self, images: Batch[Pixels], names: Sequence[str]
    ) -> Sequence[Mapping[str, Float32Array]]:
        raise NotImplementedError


class FastEngines(Engines):
    @staticmethod
    def make_engines(_: ClusterSettings) -> EngineMaker:  # type: ignore[override]
        return FastEngine


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FastEngines))
