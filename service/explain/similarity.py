"""How similar a model's attention maps are on one image: the paper's measures, defined.

Knows the manifest and arrays; nothing of HTTP or of how the outputs are computed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models import collapse
from models.arrays import Float32Array
from models.collapse import VARIANTS
from models.manifest import Manifest
from models.stages import STAGE_WORDS, Stage, map_measures

DEFINITIONS = {
    "stage": "; ".join(f"{name}: {words}" for name, words in STAGE_WORDS.items()),
    "column": "Eq. 2 of DeepViT: cosine of two blocks' maps over queries, head by head and token "
    "by token: how similarly a token contributes to every output. 1 for any two maps whose "
    "queries all attend alike, and high for near-uniform maps.",
    "row": "The same cosine over keys: how similar the positions are that a token attends to.",
    "centred": "The column cosine after subtracting each column's mean (Pearson's correlation): "
    "without what uniform attention adds.",
    "axis": "column and centred: queries; row: keys",
    "null": "not defined: the block's maps are so near-uniform that only rounding is left of them",
    "aggregation": "mean over heads and tokens of this one image",
    "neighbours": "column variant between each block and the one before it; `above_threshold` is "
    "the share of (head, token) pairs above the threshold, `below_negative` the share below its "
    "negative: maps that are mixed over heads can have both, which cancel in the mean",
    "similar_blocks": "blocks whose mean similarity to the block before them exceeds the "
    "threshold; share is of all blocks but the first",
    "heads": "column cosine between heads of one block, mean over tokens (Fig. 3c)",
    "features": "cosine of each block's output to the last one's, mean over tokens (Fig. 4)",
    "entropy": "of each query's attention in nats, mean over queries; at most log(tokens)",
    "attention_distance": "attention-weighted distance between patch centres in input pixels, "
    "without the tokens before the patches, mean over queries",
}


@dataclass(frozen=True)
class Similarity:
    """Measures of one image and stage. L blocks, H heads."""

    stage: Stage
    threshold: float
    matrix: Mapping[str, Float32Array]  # variant: [L, L], NaN where it is not defined
    neighbours: Float32Array  # [L - 1]
    above_threshold: Float32Array  # [L - 1], share of (head, token) pairs
    below_negative: Float32Array  # [L - 1], share of them below -threshold
    heads: Float32Array  # [L, H, H]
    features: Float32Array  # [L]
    entropy: Float32Array | None  # [L, H], softmax stage only
    attention_distance: Float32Array | None  # [L, H], softmax stage only

    @property
    def similar_blocks(self) -> list[int]:
        """Blocks whose similarity to the block before them exceeds the threshold."""
        return list(collapse.similar_blocks(collapse.by_block(self.neighbours), self.threshold))

    @property
    def similar_share(self) -> float:
        return len(self.similar_blocks) / max(1, len(self.neighbours))


def outputs(manifest: Manifest, stage: Stage) -> dict[str, str]:
    """For each measure of a stage, the name of the explain output that holds it."""
    names = {measure: manifest.output(measure, stage).name for measure in map_measures(stage)}
    return names | {"feature_similarity": manifest.output("feature_similarity").name}


def numbers(manifest: Manifest, stage: Stage) -> int:
    """How many numbers the measures of a stage are, about."""
    of_pairs = manifest.output("neighbour_similarity", stage)
    shapes = {output.name: output.shape for output in manifest.outputs}
    names = outputs(manifest, stage).values()
    whole = sum(math.prod(shapes[name]) for name in names if name != of_pairs.name)
    return whole + 3 * of_pairs.shape[0]


def measure(
    manifest: Manifest, stage: Stage, threshold: float, values: Mapping[str, Float32Array]
) -> Similarity:
    """The measures from the explain outputs for one image."""
    measures = {measure: values[name] for measure, name in outputs(manifest, stage).items()}
    pairs = measures["neighbour_similarity"]  # [L - 1, H, N]
    return Similarity(
        stage=stage,
        threshold=threshold,
        matrix={
            variant: _defined(manifest, stage, f"similarity.{variant}", measures)
            for variant in VARIANTS
        },
        neighbours=pairs.mean(axis=(1, 2)),
        above_threshold=(pairs > threshold).mean(axis=(1, 2), dtype=np.float32),
        below_negative=(pairs < -threshold).mean(axis=(1, 2), dtype=np.float32),
        heads=measures["head_similarity"],
        features=measures["feature_similarity"],
        entropy=measures.get("entropy"),
        attention_distance=measures.get("attention_distance"),
    )


def _defined(
    manifest: Manifest, stage: Stage, measure: str, values: Mapping[str, Float32Array]
) -> Float32Array:
    """A matrix of blocks, with NaN for those in which the export found rounding noise only."""
    blocks = list(manifest.undefined_blocks(measure, stage))
    if not blocks:
        return values[measure]
    found = values[measure].copy()
    found[blocks], found[:, blocks] = np.nan, np.nan
    return found
