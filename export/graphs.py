"""The two modules that are traced: the classifier, and the explainer with its inside laid open."""

from collections.abc import Iterator
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from export import measures, similarity
from export.fold import FoldedBlock, FoldedDeepViT
from models.config import DeepViTConfig
from models.deepvit import BlockTrace
from models.manifest import STAGES, Output, Stage

# Of every block's output, [B, L, N, C] to [B, L].
_OF_TOKENS = {
    "rank_residual": measures.rank_residual,
    "token_similarity": measures.token_similarity,
}


class Classifier(nn.Module):
    """uint8 images [B, S, S, 3] to logits [B, classes].

    Only what the head sees leaves the last block.
    """

    def __init__(self, network: FoldedDeepViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        x, softmax = self.network.embed(images).flatten(0, 1), None  # [B * N, C]
        for block in self.network.blocks[:-1]:
            x, softmax = block(x, softmax)
        x, _ = self.network.blocks[-1](x, softmax, self.network.rows)  # [B, C] for class token
        rows = self.network.rows or self.network.config.num_tokens
        return self.network.classify(x.reshape(-1, rows, x.shape[-1]))


class Explainer(nn.Module):
    """The same images to logits and everything in `outputs`, in that order."""

    def __init__(self, network: FoldedDeepViT) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(_outputs(network.config))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        inside = Inside(self.network.config)
        tokens, softmax = self.network.embed(images), None  # [B, N, C]
        x, shape = tokens.flatten(0, 1), (-1, *tokens.shape[1:])
        for block in self.network.blocks:
            softmax, reattention, x = cast(FoldedBlock, block).trace(x, softmax)
            tokens = x.reshape(shape)
            inside.add(BlockTrace(softmax, reattention, tokens))
        values = {"logits": self.network.classify(tokens), **inside.values()}
        return tuple(values[output.name] for output in self.outputs)


class Inside:
    """Every output of the explain graph but the logits, gathered block by block."""

    def __init__(self, config: DeepViTConfig) -> None:
        self._stages = {stage: _Maps(stage, config) for stage in _stages(config)}
        self._tokens: list[Tensor] = []

    def add(self, block: BlockTrace) -> None:
        for stage, maps in self._stages.items():
            maps.add(block.softmax if stage == "softmax" else block.reattention)
        self._tokens.append(block.tokens)

    def values(self) -> dict[str, Tensor]:
        """By name."""
        found = {
            f"{stage}.{name}": value
            for stage, maps in self._stages.items()
            for name, value in maps.values().items()
        }
        tokens = torch.stack(self._tokens, dim=1)  # [B, L, N, C]
        found["feature_similarity"] = similarity.feature_similarity(self._tokens)
        return found | {name: measure(tokens) for name, measure in _OF_TOKENS.items()}


class _Maps:
    """The maps of one stage, [B, H, N, N] a block, and what is measured of them.

    Measured together, when the last one is there: most take all blocks' maps at once.
    """

    def __init__(self, stage: Stage, config: DeepViTConfig) -> None:
        self._stage = stage
        self._config = config
        self._prefix = config.prefix_tokens
        self._maps: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        self._maps.append(maps)

    def values(self) -> dict[str, Tensor]:
        """By name, without the stage."""
        found = {
            f"map.{block:02}": self._maps[block] for block in _blocks(self._config, self._stage)
        }
        rows = torch.stack([block[:, :, 0] for block in self._maps], dim=1)
        found |= {"class_rows": rows, **similarity.measure(self._maps, self._reach(), self._prefix)}
        if self._stage == "softmax":
            found["rollout"] = cast(Tensor, reduce(measures.rollout, self._maps, None))
        return found

    def _reach(self) -> Tensor | None:
        if self._stage != "softmax":
            return None
        return measures.reach(self._config.num_tokens, self._config.patch_size, self._prefix)


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
    for measure in ("feature_similarity", *_OF_TOKENS):
        yield Output(name=measure, measure=measure, axes=("batch", "block"), shape=(L,))


def _stages(config: DeepViTConfig) -> tuple[Stage, ...]:
    """A network that mixes nothing has one map for both stages, written once, as softmax."""
    return STAGES if config.reatten_blocks else ("softmax",)


def _blocks(config: DeepViTConfig, stage: Stage) -> tuple[int, ...]:
    """Blocks whose map of a stage is written: a plain block has only one, one that shares none."""
    if stage == "reattention":
        return config.reatten_blocks
    return tuple(block for block in range(config.depth) if config.map_source(block) == block)
