"""The numbers that tell how a model behaves inside on one image: what is normal, and what drifts.

A signal is a measure of one block at one stage, from the explain graph, or the answer's confidence.
Free of torch: the export records what is normal of them, the service watches them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models import collapse
from models.arrays import Float32Array
from models.collapse import VARIANTS
from models.drift import Signal
from models.manifest import Manifest
from models.stages import Stage, stages

CONFIDENCE = "confidence"
_OF_HEADS = ("entropy", "attention_distance")  # of the softmax stage


class _Source(NamedTuple):
    measure: str
    stage: Stage | None
    output: str  # of the explain graph
    blocks: tuple[int, ...]


class Signals:
    """The signals of one model, and how they follow from the outputs of its explain graph."""

    def __init__(self, manifest: Manifest) -> None:
        self._sigmoid = manifest.config.scores == "sigmoid"
        self._sources = tuple(_sources(manifest))
        self.names = (
            *(Signal(one.measure, one.stage, b) for one in self._sources for b in one.blocks),
            Signal(CONFIDENCE),
        )
        # What the explain graph is asked for
        self.outputs = tuple(dict.fromkeys(("logits", *(one.output for one in self._sources))))

    def read(self, outputs: Mapping[str, Float32Array]) -> Float32Array:
        """The value of each signal [S] from the outputs for one image."""
        parts = [_by_block(one, outputs[one.output])[list(one.blocks)] for one in self._sources]
        return np.concatenate([*parts, [self._confidence(outputs["logits"])]], dtype=np.float32)

    def _confidence(self, logits: Float32Array) -> float:
        """The largest score of the answer; with sigmoids, the score of what is most likely."""
        top = float(logits.max())
        if self._sigmoid:
            return float(1 / (1 + np.exp(-top, dtype=np.float64)))
        return float(1 / np.exp(logits - top, dtype=np.float64).sum())


def _sources(manifest: Manifest) -> Iterator[_Source]:
    """What the model has of it; an earlier export may lack a measure."""
    depth = manifest.config.depth
    for stage in stages(manifest.config):
        for variant in VARIANTS:
            measure = f"similarity.{variant}"
            with suppress(KeyError):
                output = manifest.output(measure, stage).name
                noise = set(manifest.undefined_blocks(measure, stage))
                blocks = tuple(b for b in range(1, depth) if noise.isdisjoint((b - 1, b)))
                yield _Source(measure, stage, output, blocks)
    for measure in _OF_HEADS:
        with suppress(KeyError):
            output = manifest.output(measure, "softmax").name
            yield _Source(measure, "softmax", output, tuple(range(depth)))
    with suppress(KeyError):  # the last block's similarity to itself is 1
        output = manifest.output("feature_similarity").name
        yield _Source("feature_similarity", None, output, tuple(range(depth - 1)))


def _by_block(source: _Source, output: Float32Array) -> npt.NDArray[np.floating[Any]]:
    """[L, L] between blocks, [L, H] of heads or [L], to [L]."""
    if source.measure.startswith("similarity."):
        return collapse.neighbours(output)
    return output.mean(axis=1) if source.measure in _OF_HEADS else output
