"""How often a network is right, and whether its attention collapsed, on pictures as served."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.collapse import THRESHOLD, collapsed_blocks, neighbours, similar_blocks
from models.cosines import Columns, row_similarity
from models.deepvit import DeepViT
from models.measures import feature_similarity
from models.normalize import normalize
from models.preprocess import Preprocessing
from models.training.recipe import Recipe

_BATCH = 256
_TRACED = 64  # pictures whose maps are compared
_TRACED_BATCH = 8


def evaluate(
    network: DeepViT, pixels: Tensor, labels: Tensor, rule: Preprocessing, recipe: Recipe
) -> dict[str, Any]:
    """Accuracy and loss on all pictures [n, 3, S, S], uint8; blocks that are alike on the first."""
    logits = answers(network, pixels, rule, recipe.precision == "bf16")
    ranks = logits.argsort(dim=1, descending=True)[:, :5]
    right = ranks == labels[:, None]
    return {
        "test_loss": round(F.cross_entropy(logits, labels).item(), 4),
        "test_accuracy": round(right[:, 0].float().mean().item(), 4),
        "test_top5": round(right.any(dim=1).float().mean().item(), 4),
        **collapse(network, pixels, rule),
    }


@torch.inference_mode()
def answers(network: DeepViT, pixels: Tensor, rule: Preprocessing, bf16: bool = False) -> Tensor:
    """Logits for pictures [n, 3, S, S], uint8: [n, classes], float32, on the CPU."""
    device = network.pos_embed.device.type
    found = []
    for batch in pixels.split(_BATCH):
        images = _input(batch, network, rule)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            found.append(network(images).float().cpu())
    return torch.cat(found)


@torch.inference_mode()
def collapse(network: DeepViT, pixels: Tensor, rule: Preprocessing) -> dict[str, Any]:
    """How alike neighbouring blocks are by Eq. 2, in float32, on the first pictures.

    Means over pictures, heads and tokens.

    For the stages `softmax` and, where the network mixes heads, `reattention`, of L blocks: the
    cosines of each block and the one before it by column, row and centred column; similar blocks
    and collapsed ones. Also the cosine of each block's output to that of the last.
    """
    stages = ("softmax", "reattention") if network.config.reatten_blocks else ("softmax",)
    sums: dict[str, dict[str, Tensor]] = {stage: {} for stage in stages}
    features = torch.zeros(network.config.depth)
    pixels = pixels[:_TRACED]
    for batch in pixels.split(_TRACED_BATCH):
        images = _input(batch, network, rule)
        _, traces = network.trace(images)
        for stage in stages:
            maps = torch.stack([getattr(trace, stage) for trace in traces])  # [L, B, H, N, N]
            columns = Columns(maps)
            for variant, matrix in {
                "column": columns.layer_similarity(),
                "row": row_similarity(maps),
                "centred": columns.centred_similarity(),
            }.items():
                total = matrix.sum(dim=0).cpu()
                sums[stage][variant] = sums[stage].get(variant, torch.zeros_like(total)) + total
        tokens = torch.stack([trace.tokens for trace in traces], dim=1)
        features += feature_similarity(tokens).sum(dim=0).cpu()
    found: dict[str, Any] = {
        stage: _verdict({name: total / len(pixels) for name, total in sums[stage].items()})
        for stage in stages
    }
    return found | {"features_to_last": _rounded(features / len(pixels))}


def _input(pixels: Tensor, network: DeepViT, rule: Preprocessing) -> Tensor:
    return normalize(pixels.to(network.pos_embed.device) / 255, rule)


def _verdict(matrices: dict[str, Tensor]) -> dict[str, Any]:
    cosines = {name: neighbours(matrix.numpy()) for name, matrix in matrices.items()}
    return {
        "similar": list(similar_blocks(cosines["column"], THRESHOLD)),
        "collapsed": list(collapsed_blocks(cosines["column"], cosines["row"], THRESHOLD)),
    } | {name: _rounded(torch.from_numpy(values[1:])) for name, values in cosines.items()}


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
