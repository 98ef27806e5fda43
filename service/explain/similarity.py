"""How alike a model's maps are on one image: the paper's measures with their definitions.

Knows the manifest and arrays; nothing of HTTP or of how the arrays came to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models import collapse
from models.arrays import Float32Array
from models.collapse import VARIANTS
from models.manifest import STAGE_WORDS, Manifest, Stage, map_measures

DEFINITIONS = {
    "stage": "; ".join(f"{name}: {words}" for name, words in STAGE_WORDS.items()),
    "column": "Eq. 2 of DeepViT: cosine of two blocks' maps over queries, head by head and token "
    "by token: how alike a token's contribution to every output is. 1 for any two maps whose "
    "queries all attend alike, and high for near-uniform maps.",
    "row": "The same cosine over keys: how alike the places are that a token attends to.",
    "centred": "The column cosine after subtracting each column's mean (Pearson's correlation): "
    "free of what uniform attention adds.",
    "axis": "column and centred: queries; row: keys",
    "aggregation": "mean over heads and tokens of this one image",
    "neighbours": "column variant between each block and the one before it; `above_threshold` is "
    "the share of (head, token) pairs above the threshold, `below_negative` the share below its "
    "negative: maps that are mixed over heads have both, which cancel in the mean",
    "similar_blocks": "blocks whose mean similarity to the block before them exceeds the "
    "threshold; share is of all blocks but the first",
    "heads": "column cosine between heads of one block, mean over tokens (Fig. 3c)",
    "features": "cosine of each block's output to the last one's, mean over tokens (Fig. 4)",
    "entropy": "of each query's attention in nats, mean over queries; at most log(tokens)",
    "attention_distance": "attention-weighted distance between patch centres in input pixels, "
    "tokens before the patches left out, mean over queries",
}


@dataclass(frozen=True)
class Similarity:
    """Measures of one image and stage. L blocks, H heads."""

    stage: Stage
    threshold: float
    matrix: Mapping[str, Float32Array]  # variant: [L, L]
    neighbours: Float32Array  # [L - 1]
    above_threshold: Float32Array  # [L - 1], share of (head, token) pairs
    below_negative: Float32Array  # [L - 1], share of them below -threshold
    heads: Float32Array  # [L, H, H]
    features: Float32Array  # [L]
    entropy: Float32Array | None  # [L, H], softmax stage only
    attention_distance: Float32Array | None  # [L, H], softmax stage only

    @property
    def similar_blocks(self) -> list[int]:
        return list(collapse.similar_blocks(collapse.by_block(self.neighbours), self.threshold))

    @property
    def similar_share(self) -> float:
        return len(self.similar_blocks) / max(1, len(self.neighbours))


def outputs(manifest: Manifest, stage: Stage) -> dict[str, str]:
    """Names of the explain outputs that hold each measure of a stage."""
    names = {measure: manifest.output(measure, stage).name for measure in map_measures(stage)}
    return names | {"feature_similarity": manifest.output("feature_similarity").name}


def measure(
    manifest: Manifest, stage: Stage, threshold: float, values: Mapping[str, Float32Array]
) -> Similarity:
    """From the outputs of one image, by name."""
    found = {measure: values[name] for measure, name in outputs(manifest, stage).items()}
    pairs = found["neighbour_similarity"]  # [L - 1, H, N]
    return Similarity(
        stage=stage,
        threshold=threshold,
        matrix={variant: found[f"similarity.{variant}"] for variant in VARIANTS},
        neighbours=pairs.mean(axis=(1, 2)),
        above_threshold=(pairs > threshold).mean(axis=(1, 2), dtype=np.float32),
        below_negative=(pairs < -threshold).mean(axis=(1, 2), dtype=np.float32),
        heads=found["head_similarity"],
        features=found["feature_similarity"],
        entropy=found.get("entropy"),
        attention_distance=found.get("attention_distance"),
    )
