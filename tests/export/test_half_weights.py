"""Weights that half precision holds exactly take half the space, and change no answer."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from export import to_onnx
from export.fold import FoldedDeepViT
from export.graphs import Classifier
from models.config import ARCHITECTURES
from models.size import Size
from models.training.__main__ import architecture
from models.training.halves import halved
from tests.support.networks import random_network

ARCH = "deepvit_patch16_112_re_attn_16b"


def test_halves_take_half_the_space_and_answer_the_same(tmp_path: Path) -> None:
    network = halved(random_network(architecture(ARCH, {"depth": "2"}, 10)))
    classifier = Classifier(FoldedDeepViT(network, ARCHITECTURES[ARCH].preprocessing)).eval()
    graph = to_onnx.trace(classifier, Size.of(112), ["logits"])
    to_onnx.save_weights([graph], tmp_path)
    path = tmp_path / "model.onnx"
    to_onnx.save_graph(graph, path)
    onnx.checker.check_model(path, full_check=True)

    in_float32 = 4 * sum(value.numel() for value in classifier.parameters())
    assert (tmp_path / to_onnx.WEIGHTS_FILE).stat().st_size < 0.7 * in_float32
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    (found,) = ort.InferenceSession(path).run(None, {"images": images})
    with torch.no_grad():
        expected = classifier(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
