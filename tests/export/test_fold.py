"""Folding is exact: the inference network computes what the published one computes."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from export.fold import FoldedDeepViT, fold_mixing
from export.graphs import Classifier, Explainer, Inside
from export.verify import normalize
from models.arrays import Pixels
from models.config import ARCHITECTURES
from models.deepvit import Block, DeepViT
from models.preprocess import Preprocessing
from models.size import Size
from tests.support.networks import random_network

CONFIG = ARCHITECTURES["deepvit_test"].config
RULE = Preprocessing(size=Size.of(32), mean=(0.3, 0.5, 0.6), std=(0.2, 0.25, 0.3))
PIXELS: Pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
VARIANTS: dict[str, dict[str, Any]] = {
    "mixing in the last blocks": {},
    "mixing everywhere": {"reatten_blocks": (0, 1, 2)},
    "conv stem": {"stem": "conv"},
    "no norm over heads": {"reatten_norm": False},
    "no bias in qkv": {"qkv_bias": False},
    "no adjustment": {"scale_adjustment": 1.0, "reatten_scale": 1.0},
    "plain": {"reatten_blocks": (), "scale_adjustment": 1.0},
    "one head": {"num_heads": 1},
    "one block": {"depth": 1, "reatten_blocks": (0,)},
    "LayerNorm over heads": {"reatten_layer_norm": True, "layer_norm_eps": 1e-5},
    "norms around the patch embedding": {"patch_norm": True},
    "heads narrower than the tokens": {"attn_dim": 12},
    "heads wider than the tokens": {"attn_dim": 48},
    "a distillation token": {"prefix_tokens": 2, "pool": "cls_dist"},
    "registers, mean of patches, norm behind it": {
        "prefix_tokens": 4,
        "pool": "mean_patches",
        "norm_after_pool": True,
    },
    "mean of all tokens": {"pool": "mean"},
    "norm behind the class token, LayerNorm over heads": {
        "norm_after_pool": True,
        "reatten_layer_norm": True,
    },
    "a norm before the blocks": {"norm_pre": True},
    "GELU by tanh": {"activation": "gelu_tanh"},
    "QuickGELU": {"activation": "quick_gelu"},
    "no class token": {"prefix_tokens": 0, "class_token": False, "pool": "mean_patches"},
    "registers only": {"prefix_tokens": 2, "class_token": False, "pool": "mean"},
    "attention pooling": {"prefix_tokens": 0, "class_token": False, "pool": "attention"},
    "attention pooling behind registers": {
        "prefix_tokens": 2,
        "class_token": False,
        "pool": "attention",
        "last_norm": False,
    },
    "class token beside the mean": {"prefix_tokens": 3, "pool": "cls_mean"},
    "no last norm": {"last_norm": False},
    "features of unit length": {"features": 10},
    "features of unit length, attention pooling": {
        "prefix_tokens": 0,
        "class_token": False,
        "pool": "attention",
        "features": 10,
    },
    "wide patches": {"patch_size": Size(4, 16)},
    "temperatures": {"softmax_temperatures": (0.5, 1.0, 2.0)},
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
@torch.inference_mode()
def test_both_graphs_equal_the_published_network(change: dict[str, Any]) -> None:
    network = random_network(CONFIG.model_copy(update=change))
    folded = FoldedDeepViT(network, RULE)
    images = torch.from_numpy(PIXELS)
    logits, traces = network.trace(normalize(PIXELS, RULE))
    inside = Inside(network.config)
    for trace in traces:
        inside.add(trace)
    expected = {"logits": logits, **inside.values()}

    torch.testing.assert_close(Classifier(folded)(images), logits, atol=2e-5, rtol=1e-5)
    explainer = Explainer(folded)
    names = [output.name for output in explainer.outputs]
    assert sorted(names) == sorted(expected)
    for output, value in zip(explainer.outputs, explainer(images), strict=True):
        assert tuple(value.shape[1:]) == output.shape
        torch.testing.assert_close(value, expected[output.name], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_padded_stem_is_right_along_the_border() -> None:
    """A plain fold of mean and std would see black, not the mean colour, outside the picture."""
    network = random_network(CONFIG.model_copy(update={"stem": "conv"}))
    folded = FoldedDeepViT(network, RULE)
    expected = network.patch_embed(normalize(PIXELS, RULE))
    torch.testing.assert_close(
        folded.patch_embed(torch.from_numpy(PIXELS)), expected, atol=1e-5, rtol=1e-5
    )


@torch.inference_mode()
def test_rows_of_a_mixed_map_sum_to_a_constant_known_from_the_weights() -> None:
    network = random_network(CONFIG)
    _, traces = network.trace(normalize(PIXELS, RULE))
    for block in CONFIG.reatten_blocks:
        constant = fold_mixing(network, block).row_sum(CONFIG.num_tokens)  # [H]
        assert constant is not None
        sums = traces[block].reattention.sum(dim=-1)  # [B, H, N]
        torch.testing.assert_close(sums, constant[None, :, None].expand_as(sums), atol=1e-4, rtol=0)
        torch.testing.assert_close(constant, formula(network, block), atol=1e-5, rtol=1e-5)


def formula(network: DeepViT, block: int) -> torch.Tensor:
    """The constant as section 3.5 of the paper notes writes it, without folding. [H]"""
    attention = cast(Block, network.blocks[block]).attn
    theta, norm = attention.reatten_matrix, attention.var_norm
    assert theta is not None
    assert theta.bias is not None
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    tokens = network.config.num_tokens
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    mixed = theta.weight[:, :, 0, 0].sum(dim=1) + tokens * (theta.bias - norm.running_mean)
    return attention.reatten_scale * (scale * mixed + tokens * norm.bias)
