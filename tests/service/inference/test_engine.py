"""The engine's choices for GPUs, as far as they can be seen on a CPU."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.arrays import Float32Array, Pixels
from service.errors import StartupError
from service.inference.engine import Engine
from service.inference.graph_batches import Buckets
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT, VIT

IMAGES: Pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def logits(engine: Engine) -> Float32Array:
    return np.stack(engine.classify(list(IMAGES)))


def test_half_precision_says_the_same(repository: Path) -> None:
    full = Engine(repository / DEEPVIT / "1", EngineOptions())
    half = Engine(repository / DEEPVIT / "1", EngineOptions(precision="fp16"))
    assert (full.precision, half.precision) == ("fp32", "fp16")
    expected, found = logits(full), logits(half)
    assert 0 < np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    recorded = {row.graph: row for row in half.manifest.parity if row.output == "logits"}
    assert 0 < recorded["model.fp16"].max_abs_difference <= recorded["model.fp16"].tolerance


def test_a_precision_that_was_not_exported_is_not_replaced(repository: Path) -> None:
    with pytest.raises(StartupError, match="has no fp16: export with --precision fp16"):
        Engine(repository / VIT / "1", EngineOptions(precision="fp16"))


def test_padded_batches_in_fixed_buffers_give_the_same_logits(repository: Path) -> None:
    session = ort.InferenceSession(
        repository / DEEPVIT / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    buckets = Buckets(session, 6, IMAGES.shape[1:], 10, "cpu")
    assert buckets.sizes == [1, 2, 3, 4, 6]
    for batch in (
        3,
        6,
        1,
        5,
        3,
    ):  # smaller ones after larger ones, whose images stay in the buffers
        images = IMAGES[-batch:]
        (expected,) = session.run(["logits"], {"images": images})
        found = buckets.run(list(images))
        assert found.shape == (batch, 10)
        np.testing.assert_allclose(found, expected, atol=1e-5)
