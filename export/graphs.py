"""The two modules that are traced: the classifier, and the explainer with its inside laid open."""

from collections import defaultdict
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from export import measures
from export.fold import FoldedBlock, FoldedDeepViT
from models.config import DeepViTConfig
from models.deepvit import BlockTrace
from models.manifest import STAGES, Output, Stage

# Of every block's output, [B, L, N, C] to [B, L].
_OF_TOKENS = {
    "feature_similarity": measures.feature_similarity,
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
        x, softmax = self.network.embed(images), None
        for block in self.network.blocks[:-1]:
            x, softmax = block(x, softmax)
        x, _ = self.network.blocks[-1](x, softmax, self.network.rows)  # [B, 1, C] for class token
        return self.network.classify(x)


class Explainer(nn.Module):
    """The same images to logits and everything in `outputs`, in that order."""

    def __init__(self, network: FoldedDeepViT) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(_outputs(network.config))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        inside = Inside(self.network.config)
        x, softmax = self.network.embed(images), None
        for block in self.network.blocks:
            parts = cast(FoldedBlock, block).trace(x, softmax)
            inside.add(parts)
            x, softmax = parts.tokens, parts.softmax
        values = {"logits": self.network.classify(x), **inside.values()}
        return tuple(values[output.name] for output in self.outputs)


class Inside:
    """Every output of the explain graph but the logits, gathered block by block.

    A block is measured before the next one is run, so that the graph, run in this order,
    can let go of what it needed: at 32 blocks that is most of the memory.
    """

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
        return found | {name: measure(tokens) for name, measure in _OF_TOKENS.items()}


class _Maps:
    """The maps of one stage, [B, H, N, N] a block, and what is measured of them."""

    def __init__(self, stage: Stage, config: DeepViTConfig) -> None:
        self._stage = stage
        self._config = config
        self._maps: list[Tensor] = []
        self._units: dict[measures.Variant, list[Tensor]] = {v: [] for v in measures.VARIANTS}
        self._rollout: Tensor | None = None
        self._by_block: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, maps: Tensor) -> None:
        units = {variant: measures.directions(maps, variant) for variant in measures.VARIANTS}
        columns = units["column"]
        found = {"class_rows": maps[:, :, 0], "head_similarity": measures.head_similarity(columns)}
        if self._maps:
            before = self._units["column"][-1]
            found["neighbour_similarity"] = measures.cross_layer_similarity(columns, before)
        if self._stage == "softmax":
            found["entropy"] = measures.entropy(maps)
            found["attention_distance"] = measures.attention_distance(
                maps, self._config.patch_size, self._config.prefix_tokens
            )
            self._rollout = measures.rollout(self._rollout, maps)
        for name, value in found.items():
            self._by_block[name].append(value)
        for variant, unit in units.items():
            self._units[variant].append(unit)
        self._maps.append(maps)

    def values(self) -> dict[str, Tensor]:
        """By name, without the stage."""
        values = {
            f"map.{block:02}": self._maps[block] for block in _blocks(self._config, self._stage)
        }
        first = self._maps[0][:, None, :, 0]  # [B, 1, H, N]
        values["neighbour_similarity"] = first[:, :0]  # of a single block
        for name, blocks in self._by_block.items():
            values[name] = torch.stack(blocks, dim=1)
        for variant, units in self._units.items():
            values[f"similarity.{variant}"] = measures.layer_similarity(units)
        if self._rollout is not None:
            values["rollout"] = self._rollout
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
    for measure in _OF_TOKENS:
        yield Output(name=measure, measure=measure, axes=("batch", "block"), shape=(L,))


def _stages(config: DeepViTConfig) -> tuple[Stage, ...]:
    """A network that mixes nothing has one map for both stages, written once, as softmax."""
    return STAGES if config.reatten_blocks else ("softmax",)


def _blocks(config: DeepViTConfig, stage: Stage) -> tuple[int, ...]:
    """Blocks whose map of a stage is written: a plain block has only one, one that shares none."""
    if stage == "reattention":
        return config.reatten_blocks
    return tuple(block for block in range(config.depth) if config.map_source(block) == block)
