"""Verdicts on synthetic models: collapsed, not collapsed, and the traps of Eq. 2."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from export.report.running import Estimate, Running
from export.report.verdict import Verdict, blocks_in_words, judge
from models import measures
from models.arrays import Float64Array
from models.cosines import Columns, row_similarity
from models.stages import Stage

IMAGES, DEPTH, H, N = 4, 6, 3, 50


def verdict(blocks: list[Tensor], threshold: float = 0.9, stage: Stage = "softmax") -> Verdict:
    """On maps [IMAGES, H, N, N] of each block."""
    estimates = []
    stacked = torch.stack(blocks)
    columns = Columns(stacked)
    for similarity in (
        columns.layer_similarity(),
        row_similarity(stacked),
        columns.centred_similarity(),
    ):
        running = Running()
        running.add(similarity.numpy())
        estimates.append(running.estimate())
    column, row, centred = estimates
    pairs = columns.neighbour_similarity().numpy().swapaxes(0, 1)  # [L - 1, B, H, N]
    above = np.array([np.nan, *(np.mean(pair > threshold) for pair in pairs)])
    below = np.array([np.nan, *(np.mean(pair < -threshold) for pair in pairs)])
    evenness = None
    if stage == "softmax":
        entropy = torch.stack([measures.entropy(block).mean() for block in blocks])
        evenness = entropy.numpy() / np.log(N)
    return judge(stage, threshold, column, row, centred, above, below, evenness)


def maps(seed: int, deviation: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((IMAGES, H, N, N), generator=generator) * deviation
    return logits.softmax(dim=-1)


def stripes(seed: int) -> Tensor:
    """Every query attends alike, to keys that no other seed shares."""
    return maps(seed)[:, :, :1].expand(-1, -1, N, -1)


def test_unlike_blocks_have_not_collapsed() -> None:
    found = verdict([maps(seed) for seed in range(DEPTH)])
    assert found.similar == found.collapsed == ()
    assert found.donor == found.donor_by_rows == DEPTH - 1
    assert found.sentences[0].startswith("At the softmax stage no block has collapsed: by Eq. 2")
    assert "nothing to share" in found.sentences[-1]


def test_blocks_that_repeat_one_have_collapsed_onto_it() -> None:
    unlike = [maps(seed) for seed in range(3)]
    found = verdict([*unlike, *[unlike[-1]] * (DEPTH - 3)])
    assert found.similar == found.collapsed == (3, 4, 5)
    assert found.donor == found.donor_by_rows == 2
    told = " ".join(found.sentences)
    assert "3 of 5 blocks are similar" in told
    assert "3 of them have collapsed, blocks 3 to 5" in told
    assert "More than the columns' means is shared: centred, the cosine is 1.000." in told
    assert told.endswith("would take block 2 as donor and share its map with blocks 3 to 5.")


def test_trap_unrelated_stripes_are_similar_but_have_not_collapsed() -> None:
    found = verdict([stripes(seed) for seed in range(DEPTH)])
    assert found.similar == (1, 2, 3, 4, 5)
    assert found.collapsed == ()
    assert (found.donor, found.donor_by_rows) == (0, DEPTH - 1)
    told = " ".join(found.sentences)
    assert "None of them has collapsed." in told
    assert "In blocks 1 to 5 only columns are alike" in told
    assert "not to the same keys" in told
    assert told.endswith("where rows have to be alike as well, with none.")


def test_trap_near_uniform_maps_are_said_to_be_so() -> None:
    found = verdict([maps(seed, deviation=0.2) for seed in range(DEPTH)])
    assert found.similar == (1, 2, 3, 4, 5)
    told = " ".join(found.sentences)
    assert "What similar blocks share is the mean of each column" in told
    assert "Attention is near uniform in blocks 1 to 5" in told


def test_trap_opposite_signs_cancel_in_the_mean() -> None:
    first = maps(0)
    half = torch.ones(1, H, 1, N)
    half[..., : 3 * N // 5] = -1  # of the columns
    unlike = maps(1) - 1 / N
    found = verdict([first, first * half, -first, unlike, -unlike], stage="reattention")
    assert found.similar == found.collapsed == ()
    assert found.alike_up_to_sign == (1, 2, 4)
    told = " ".join(found.sentences)
    assert told.startswith("At the reattention stage no block has collapsed")
    assert "in blocks 1 to 2 and 4 most (head, token) pairs are alike up to their sign" in told
    assert "0 to 60 % above 0.9 and 40 to 100 % below -0.9." in told


def test_a_few_opposite_vectors_are_no_matter() -> None:
    few = torch.ones(1, H, 1, N)
    few[..., :2] = -1
    found = verdict([maps(0), maps(0) * few], stage="reattention")
    assert found.similar == (1,)
    assert found.alike_up_to_sign == ()
    assert "sign" not in " ".join(found.sentences)


def test_a_similar_block_in_the_middle_is_no_reason_to_share_earlier() -> None:
    blocks = [maps(seed) for seed in range(DEPTH)]
    blocks[2] = blocks[1]
    found = verdict(blocks)
    assert found.collapsed == (2,)
    assert found.donor == DEPTH - 1
    assert "1 of them has collapsed, block 2" in " ".join(found.sentences)


def test_the_threshold_decides() -> None:
    first, other = maps(0), maps(1)
    blocks = [first, 0.7 * first + 0.3 * other]
    assert verdict(blocks, threshold=0.5).similar == (1,)
    assert verdict(blocks, threshold=0.99).similar == ()


@pytest.mark.parametrize(
    ("column", "row", "undecided"), [(0.91, 0.5, True), (0.99, 0.89, True), (0.5, 0.91, False)]
)
def test_what_images_cannot_decide_is_said(column: float, row: float, undecided: bool) -> None:
    def pair(likeness: float) -> Estimate:
        matrix: Float64Array = np.array([[1, likeness], [likeness, 1]])
        return Estimate(matrix, np.full((2, 2), 0.02), images=10)

    none: Float64Array = np.array([np.nan, 0])
    found = judge("reattention", 0.9, pair(column), pair(row), pair(0.0), none, none)
    assert found.undecided == ((1,) if undecided else ())


def test_a_single_block_is_like_no_other() -> None:
    found = verdict([maps(0)])
    assert (found.similar, found.donor) == ((), 0)
    assert found.sentences[0] == "A single block has no other to be like."


def test_blocks_are_named_by_runs() -> None:
    assert blocks_in_words([3]) == "block 3"
    assert blocks_in_words([1, 2]) == "blocks 1 to 2"
    assert blocks_in_words([1, 4, 5, 6, 9]) == "blocks 1, 4 to 6 and 9"
    for blocks in itertools.combinations(range(5), 2):
        assert blocks_in_words(blocks).startswith(f"blocks {blocks[0]}")
