"""The two modules that are traced: the classifier, and the explainer, which shows its inside."""

from collections.abc import Iterator
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from export import similarity
from export.fold import FoldedBlock, FoldedDeepViT
from models import measures
from models.config import DeepViTConfig
from models.deepvit import BlockTrace
from models.manifest import Output
from models.stages import TOKEN_MEASURES, Stage, map_measures, stages


class Classifier(nn.Module):
    """uint8 images [B, height, width, 3] to logits [B, classes].

    The last block computes only the tokens that the head sees.
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
    """All outputs of the explain graph except the logits, gathered block by block."""

    def __init__(self, config: DeepViTConfig) -> None:
        self._stages = {stage: _Maps(stage, config) for stage in stages(config)}
        self._tokens: list[Tensor] = []

    def add(self, block: BlockTrace) -> None:
        for stage, maps in self._stages.items():
            maps.add(block.softmax if stage == "softmax" else block.reattention)
        self._tokens.append(block.tokens)

    def values(self) -> dict[str, Tensor]:
        """Outputs by name."""
        found = {
            f"{stage}.{name}": value
            for stage, maps in self._stages.items()
            for name, value in maps.values().items()
        }
        tokens = torch.stack(self._tokens, dim=1)  # [B, L, N, C]
        return found | {
            "feature_similarity": similarity.feature_similarity(self._tokens),
            "rank_residual": measures.rank_residual(tokens),
            "token_similarity": measures.token_similarity(tokens),
        }


class _Maps:
    """The maps of one stage, [B, H, N, N] for each block, and the measures of them.

    Measured at the end, because most measures need the maps of all blocks at once.
    """

    def __init__(self, stage: Stage, config: DeepViTConfig) -> None:
        self._stage = stage
        self._config = config
        self._maps: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        self._maps.append(maps)

    def values(self) -> dict[str, Tensor]:
        """Outputs by name, without the stage."""
        found = {
            f"map.{block:02}": self._maps[block] for block in _blocks(self._config, self._stage)
        }
        if self._config.class_token:
            found["class_rows"] = torch.stack([block[:, :, 0] for block in self._maps], dim=1)
        found |= similarity.measure(self._maps, self._reach(), self._config.prefix_tokens)
        if self._stage == "softmax":
            found["rollout"] = cast(Tensor, reduce(measures.rollout, self._maps, None))
        return found

    def _reach(self) -> Tensor | None:
        if self._stage != "softmax":
            return None
        config = self._config
        return measures.reach(config.grid, config.patch_size, config.prefix_tokens)


def _outputs(config: DeepViTConfig) -> Iterator[Output]:
    """The explain graph's outputs, as the manifest describes them."""
    yield _output(config, "logits", ("class",))
    for stage in stages(config):
        for block in _blocks(config, stage):
            yield _output(config, "map", ("head", "query", "key"), stage, block)
        if config.class_token:
            yield _output(config, "class_rows", ("block", "head", "key"), stage)
        for measure, axes in map_measures(stage).items():
            yield _output(config, measure, axes, stage)
        if stage == "softmax":
            yield _output(config, "rollout", ("query", "key"), stage)
    for measure in TOKEN_MEASURES:
        yield _output(config, measure, ("block",))


def _output(
    config: DeepViTConfig,
    measure: str,
    axes: tuple[str, ...],
    stage: Stage | None = None,
    block: int | None = None,
) -> Output:
    sizes = {"class": config.num_classes, "block": config.depth, "head": config.num_heads}
    shape = [sizes.get(axis, config.num_tokens) for axis in axes]
    if measure == "neighbour_similarity":
        shape[0] -= 1  # block 0 has no block before it
    name = measure if stage is None else f"{stage}.{measure}"
    return Output(
        name=name if block is None else f"{name}.{block:02}",
        measure=measure,
        axes=("batch", *axes),
        shape=tuple(shape),
        stage=stage,
        block=block,
    )


def _blocks(config: DeepViTConfig, stage: Stage) -> tuple[int, ...]:
    """Blocks with a map of their own: not those that share one, nor plain ones after mixing."""
    if stage == "reattention":
        return config.reatten_blocks
    return tuple(block for block in range(config.depth) if config.map_source(block) == block)
