"""Half precision for GPUs: its operators are grouped, and answer what the classifier answers."""

from collections import Counter
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.fold import FoldedDeepViT
from export.functions import DOMAIN
from export.graphs import Classifier
from export.half import half
from export.to_onnx import trace
from models.arrays import Float32Array, Pixels
from models.config import ARCHITECTURES, DeepViTConfig
from models.preprocess import Preprocessing
from models.size import Size
from tests.support.networks import random_network, settled

DEPTH = 2


def small(name: str, mixing: bool) -> DeepViTConfig:
    blocks = tuple(range(DEPTH)) if mixing else ()
    fewer = {"depth": DEPTH, "img_size": Size.of(64), "reatten_blocks": blocks}
    return ARCHITECTURES[name].config.model_copy(update=fewer)


CONFIGS = {
    "mixed": small("deepvit_patch16_224_re_attn_16b", mixing=True),
    "plain": small("vit_patch16_224_16b", mixing=False),
    "33 columns a head": small("deepvit_S", mixing=True),
}


@cache
def traced(name: str) -> ir.Model:
    config = CONFIGS[name]
    network = settled(random_network(config))
    folded = FoldedDeepViT(network, Preprocessing(size=config.img_size)).eval()
    return trace(Classifier(folded), config.img_size, ["logits"])


def logits(model: ir.Model, images: Pixels) -> Float32Array:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    found: Float32Array = session.run(["logits"], {"images": images})[0]
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_grouped_operators_answer_the_same(name: str) -> None:
    exact = traced(name)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    expected, found = logits(exact, images), logits(half(exact), images)
    assert 0 < np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "prefix"), [("mixed", "Re"), ("plain", "")])
def test_each_activation_is_read_and_written_once(name: str, prefix: str) -> None:
    counts = Counter(node.op_type for node in half(traced(name)).graph)
    assert counts[f"Packed{prefix}Attention"] == DEPTH - 1  # the last one asks for fewer queries
    assert counts[f"{prefix}Attention"] == 1
    assert counts["BiasGelu"] == DEPTH
    assert counts["SkipLayerNormalization"] == 2 * DEPTH - 1  # what leaves the last is normed later
    assert counts["Gelu"] == 0
    assert counts["Shape"] == 0  # sizes that a CPU computes cannot be captured in a CUDA graph


def test_heads_are_widened_to_what_one_load_takes() -> None:
    widened = half(traced("33 columns a head")).graph
    shapes = [node.attributes["keys"].as_ints() for node in widened if node.domain == DOMAIN]
    assert [list(shape) for shape in shapes] == [[-1, 17, 12, 40]] * DEPTH
