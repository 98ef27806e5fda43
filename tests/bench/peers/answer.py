"""Decoding, inference and answers, shared by all peers. Independent of any server.

ONNX Runtime is set up by its own guide to threads
(https://onnxruntime.ai/docs/performance/tune-performance/threading.html): the number of threads of
an inference, and whether they spin, are what it says to try.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from models.arrays import Pixels
from models.manifest import Manifest
from models.preprocess import preprocess
from tests.bench.peers.given import Given, Setup

_TOP_K = 5


class Decoder:
    """From a JPEG to the pixels that the model takes."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())

    def decode(self, jpeg: bytes) -> Pixels:
        return preprocess(Image.open(io.BytesIO(jpeg)).convert("RGB"), self.manifest.preprocessing)

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


class Model(Decoder):
    """An exported model in a plain session of ONNX Runtime, warmed up."""

    def __init__(self, given: Given) -> None:
        super().__init__(given.folder)
        self._session = ort.InferenceSession(
            given.folder / "model.onnx",
            _options(given.setup, given.kernels),
            providers=["CPUExecutionProvider"],
        )
        size = self.manifest.preprocessing.size
        self.logits([np.zeros((*size, 3), np.uint8)])

    def logits(self, images: Sequence[Pixels]) -> Sequence[Any]:
        return list(self._session.run(None, {"images": np.stack(images)})[0])

    def classify(self, jpeg: bytes) -> dict[str, Any]:
        """One image from its bytes to its answer."""
        return self.answer(self.logits([self.decode(jpeg)])[0])


def _options(setup: Setup, kernels: Path | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setup.spin)))
    if kernels:
        options.register_custom_ops_library(str(kernels))
    return options
