"""Decoding, inference and answers, shared by all peers. Independent of any server."""

import argparse
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from models.arrays import Pixels
from models.manifest import Manifest
from models.preprocess import preprocess

_TOP_K = 5


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="a version in the model repository")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="threads of one inference")
    parser.add_argument("--max-batch-size", type=int, default=32)
    parser.add_argument("--batch-timeout-ms", type=int, default=0)
    return parser.parse_args()


class Model:
    """An exported model in a plain session of ONNX Runtime."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        self._path = folder / "model.onnx"
        self._threads = threads

    @cached_property
    def session(self) -> ort.InferenceSession:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._threads
        return ort.InferenceSession(self._path, settings, providers=["CPUExecutionProvider"])

    def decode(self, jpeg: bytes) -> Pixels:
        return preprocess(Image.open(io.BytesIO(jpeg)).convert("RGB"), self.manifest.preprocessing)

    def logits(self, images: Sequence[Pixels]) -> Sequence[Any]:
        return list(self.session.run(None, {"images": np.stack(images)})[0])

    def warm_up(self) -> None:
        size = self.manifest.preprocessing.size
        self.logits([np.zeros((*size, 3), np.uint8)])

    def answer(self, logits: Any) -> dict[str, Any]:
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        best = np.argsort(-probabilities)[:_TOP_K]
        labels = self.manifest.labels
        return {
            "predictions": [
                {"label": labels[index], "probability": float(probabilities[index])}
                for index in best
            ]
        }
