"""The two stages of attention, and what the explain graph measures at each. Free of torch."""

from typing import Literal

from models.collapse import VARIANTS
from models.config import DeepViTConfig

Stage = Literal["softmax", "reattention"]
STAGES: tuple[Stage, ...] = ("softmax", "reattention")
STAGE_WORDS: dict[Stage, str] = {
    "softmax": "before heads are mixed: every row of a map sums to 1",
    "reattention": "after mixing and norm, what multiplies the values: entries may be negative, "
    "and all rows of a head's map have the same sum, unless a LayerNorm over heads stays in the "
    "graph; in a block that does not mix, the softmax map",
}

_MAP_MEASURES: dict[str, tuple[str, ...]] = {
    **{f"similarity.{variant}": ("block", "block") for variant in VARIANTS},
    "neighbour_similarity": ("block", "head", "token"),
    "head_similarity": ("block", "head", "head"),
}
_SOFTMAX_MEASURES = {  # of maps whose rows sum to 1
    "entropy": ("block", "head"),
    "attention_distance": ("block", "head"),
}
TOKEN_MEASURES = ("feature_similarity", "rank_residual", "token_similarity")  # a value a block


def stages(config: DeepViTConfig) -> tuple[Stage, ...]:
    """The stages that differ: a network that never mixes heads has one map for both."""
    return STAGES if config.reatten_blocks else ("softmax",)


def map_measures(stage: Stage) -> dict[str, tuple[str, ...]]:
    """What is measured of the maps of a stage, with the axes behind the batch."""
    return _MAP_MEASURES | _SOFTMAX_MEASURES if stage == "softmax" else dict(_MAP_MEASURES)
