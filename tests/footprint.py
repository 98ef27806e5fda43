"""`python -m tests.footprint FOLDER`: resident memory of a model as explanations are added.

FOLDER is a version in the model repository. Each kind of explanation runs at batch 1 and at the
largest batch. The figures accumulate: sessions that one kind opens stay open for the next.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.explain import similarity
from service.inference.cpus import available_cpus
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.support.memory import Footprint


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.footprint", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    _print("before")
    engine = OnnxEngine(folder, EngineOptions(intra_op_threads=available_cpus()))
    engine.warm_up()
    _print(f"classification, up to batch {engine.max_batch_size}")
    for name, outputs in _explanations(engine).items():
        largest = engine.manifest.max_explain_batch_size
        for batch in (1, largest):
            size = engine.manifest.preprocessing.size
            engine.explain([np.zeros((*size, 3), np.uint8)] * batch, outputs)
        _print(f"and {name}, up to batch {largest}")


def _explanations(engine: OnnxEngine) -> dict[str, Sequence[str]]:
    """Outputs of the explain graph, in the combinations that the service runs."""
    manifest = engine.manifest
    return {
        "class token rows": [manifest.output("class_rows", "reattention").name],
        "softmax measures": list(similarity.outputs(manifest, "softmax").values()),
        "re-attention measures": list(similarity.outputs(manifest, "reattention").values()),
        "one map": [manifest.output("map", "reattention", manifest.config.depth - 1).name],
    }


def _print(what: str) -> None:
    print(f"{Footprint.of(os.getpid()).resident_bytes / 2**20:8.0f} MiB  {what}")


if __name__ == "__main__":
    main()
