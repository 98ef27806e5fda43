"""Batches for CUDA graphs, as far as they can be tested on a CPU."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.arrays import Pixels
from service.inference.graph_batches import GraphBatches
from tests.conftest import DEEPVIT

IMAGES: Pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def test_padded_batches_in_fixed_buffers_give_the_same_logits(repository: Path) -> None:
    session = ort.InferenceSession(
        repository / DEEPVIT / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    batches = GraphBatches(session, 6, IMAGES.shape[1:], 10, "cpu")
    assert batches.sizes == [1, 2, 3, 4, 6]
    # Smaller batches come after larger ones, whose images are still in the buffers.
    for size in (3, 6, 1, 5, 3):
        images = IMAGES[-size:]
        (expected,) = session.run(["logits"], {"images": images})
        found = batches.run(list(images))
        assert found.shape == (size, 10)
        np.testing.assert_allclose(found, expected, atol=1e-5)
