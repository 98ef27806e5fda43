"""The two modules that are traced: the classifier, and the explainer with its inside laid open."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from export import measures
from export.fold import FoldedBlock, FoldedDeepViT
from models.config import DeepViTConfig
from models.manifest import STAGES, Output, Stage


class Classifier(nn.Module):
    """uint8 images [B, S, S, 3] to logits [B, classes].

    Only the class token leaves the last block.
    """

    def __init__(self, network: FoldedDeepViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        x = self.network.embed(images)
        for block in self.network.blocks[:-1]:
            x = block(x)
        cls: Tensor = self.network.blocks[-1](x, rows=1)  # [B, 1, C]
        return self.network.classify(cls)


class Explainer(nn.Module):
    """The same images to logits and everything in `outputs`, in that order."""

    def __init__(self, network: FoldedDeepViT) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(_outputs(network.config))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.network.embed(images)
        softmax, reattention, tokens = [], [], []
        for block in self.network.blocks:
            parts = cast(FoldedBlock, block).trace(x)
            softmax.append(parts.softmax)
            reattention.append(parts.reattention)
            tokens.append(x := parts.tokens)
        values = explain(
            self.network.config, self.network.classify(x), softmax, reattention, tokens
        )
        return tuple(values[output.name] for output in self.outputs)


def explain(
    config: DeepViTConfig,
    logits: Tensor,
    softmax: list[Tensor],
    reattention: list[Tensor],
    tokens: list[Tensor],
) -> dict[str, Tensor]:
    """Every output of the explain graph by name, from what each block did.

    `softmax` and `reattention` are [B, H, N, N] a block, `tokens` [B, N, C] a block.
    """
    values = {"logits": logits}
    maps = dict(zip(STAGES, (softmax, reattention), strict=True))
    for stage in _stages(config):
        stacked = torch.stack(maps[stage], dim=1)  # [B, L, H, N, N]
        for block in _blocks(config, stage):
            values[f"{stage}.map.{block:02}"] = maps[stage][block]
        values[f"{stage}.class_rows"] = torch.stack([m[:, :, 0] for m in maps[stage]], dim=1)
        for variant in measures.VARIANTS:
            values[f"{stage}.similarity.{variant}"] = measures.layer_similarity(stacked, variant)
        values[f"{stage}.neighbour_similarity"] = measures.neighbour_similarity(stacked)
        values[f"{stage}.head_similarity"] = measures.head_similarity(stacked)
        if stage == "softmax":
            values["softmax.entropy"] = measures.entropy(stacked)
            values["softmax.attention_distance"] = measures.attention_distance(
                stacked, config.patch_size
            )
            values["softmax.rollout"] = measures.rollout(stacked)
    values["feature_similarity"] = measures.feature_similarity(torch.stack(tokens, dim=1))
    return values


def _outputs(config: DeepViTConfig) -> Iterator[Output]:
    """The explain graph's outputs, as the manifest describes them."""
    L, H, N = config.depth, config.num_heads, config.num_tokens
    yield Output(
        name="logits", measure="logits", axes=("batch", "class"), shape=(config.num_classes,)
    )
    for stage in _stages(config):
        stacked = {
            "class_rows": (("block", "head", "key"), (L, H, N)),
            "similarity.column": (("block", "block"), (L, L)),
            "similarity.row": (("block", "block"), (L, L)),
            "similarity.centred": (("block", "block"), (L, L)),
            "neighbour_similarity": (("block", "head", "token"), (L - 1, H, N)),
            "head_similarity": (("block", "head", "head"), (L, H, H)),
        }
        if stage == "softmax":
            stacked |= {
                "entropy": (("block", "head"), (L, H)),
                "attention_distance": (("block", "head"), (L, H)),
                "rollout": (("query", "key"), (N, N)),
            }
        for block in _blocks(config, stage):
            yield Output(
                name=f"{stage}.map.{block:02}",
                measure="map",
                axes=("batch", "head", "query", "key"),
                shape=(H, N, N),
                stage=stage,
                block=block,
            )
        for measure, (axes, shape) in stacked.items():
            yield Output(
                name=f"{stage}.{measure}",
                measure=measure,
                axes=("batch", *axes),
                shape=shape,
                stage=stage,
            )
    yield Output(
        name="feature_similarity",
        measure="feature_similarity",
        axes=("batch", "block"),
        shape=(L,),
    )


def _stages(config: DeepViTConfig) -> tuple[Stage, ...]:
    """A network that mixes nothing has one map for both stages, written once, as softmax."""
    return STAGES if config.reatten_blocks else ("softmax",)


def _blocks(config: DeepViTConfig, stage: Stage) -> tuple[int, ...]:
    """Blocks whose map of a stage is written: a plain block has only one."""
    return tuple(range(config.depth)) if stage == "softmax" else config.reatten_blocks
