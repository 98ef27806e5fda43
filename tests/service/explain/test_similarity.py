"""The measures come from the right outputs, and the counts of similar blocks are right."""

import numpy as np
import pytest

from models.arrays import Float32Array
from models.collapse import VARIANTS
from models.config import ARCHITECTURES
from models.stages import STAGES, Stage
from service.explain.similarity import Similarity, measure, outputs
from tests.service.explain.test_selection import manifest_of

DEEPVIT = manifest_of(ARCHITECTURES["deepvit_test"].config)
PLAIN = manifest_of(ARCHITECTURES["deepvit_test"].config.model_copy(update={"reatten_blocks": ()}))
# Two pairs of blocks, two heads, two tokens; their means are 0.75 and 0.375.
PAIRS = np.array(
    [[[0.875, 0.875], [0.875, 0.375]], [[0.125, 0.25], [0.25, 0.875]]], dtype=np.float32
)


def random_values(seed: int = 0) -> dict[str, Float32Array]:
    random = np.random.default_rng(seed)
    return {
        output.name: random.random(output.shape, dtype=np.float32) for output in DEEPVIT.outputs
    }


def measured(
    threshold: float, pairs: Float32Array = PAIRS, stage: Stage = "reattention"
) -> Similarity:
    values = random_values() | {f"{stage}.neighbour_similarity": pairs}
    return measure(DEEPVIT, stage, threshold, values)


@pytest.mark.parametrize(
    ("threshold", "shares", "blocks", "share"),
    [
        (0.0, [1, 1], [1, 2], 1),
        (0.25, [1, 0.25], [1, 2], 1),
        (0.375, [0.75, 0.25], [1], 0.5),
        (0.75, [0.75, 0.25], [], 0),
        (0.875, [0, 0], [], 0),
    ],
)
def test_only_what_exceeds_the_threshold_counts(
    threshold: float, shares: list[float], blocks: list[int], share: float
) -> None:
    found = measured(threshold)
    assert found.neighbours.tolist() == [0.75, 0.375]
    assert found.above_threshold.tolist() == shares
    assert found.similar_blocks == blocks
    assert found.similar_share == share


def test_opposite_pairs_cancel_in_the_mean_and_are_counted_separately() -> None:
    opposite = PAIRS * np.array([[1, -1]], dtype=np.float32)  # with the second token's sign flipped
    found = measured(0.3125, pairs=opposite)
    assert found.neighbours.tolist() == [0.125, -0.1875]
    assert found.above_threshold.tolist() == [0.5, 0]
    assert found.below_negative.tolist() == [0.5, 0.25]


def test_a_single_block_has_no_similar_blocks() -> None:
    found = measured(0.5, pairs=np.empty((0, 2, 2), dtype=np.float32))
    assert found.above_threshold.shape == (0,)
    assert found.similar_blocks == []
    assert found.similar_share == 0


@pytest.mark.parametrize("stage", STAGES)
def test_every_measure_is_from_its_stage(stage: Stage) -> None:
    values = random_values()
    found = measure(DEEPVIT, stage, 0.5, values)
    assert found.matrix.keys() == set(VARIANTS)
    for variant, matrix in found.matrix.items():
        np.testing.assert_array_equal(matrix, values[f"{stage}.similarity.{variant}"])
    np.testing.assert_array_equal(found.heads, values[f"{stage}.head_similarity"])
    np.testing.assert_array_equal(found.features, values["feature_similarity"])


def test_entropy_and_distance_are_for_the_softmax_stage_only() -> None:
    values = random_values()
    softmax = measure(DEEPVIT, "softmax", 0.5, values)
    np.testing.assert_array_equal(softmax.entropy, values["softmax.entropy"])
    np.testing.assert_array_equal(softmax.attention_distance, values["softmax.attention_distance"])
    reattention = measure(DEEPVIT, "reattention", 0.5, values)
    assert reattention.entropy is None
    assert reattention.attention_distance is None


def test_without_reattention_both_stages_have_the_same_measures() -> None:
    names = outputs(PLAIN, "reattention")
    assert set(names.values()) <= {output.name for output in PLAIN.outputs}
    assert names.items() <= outputs(PLAIN, "softmax").items()
