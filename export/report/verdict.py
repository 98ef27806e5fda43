"""Has attention collapsed? In blocks, numbers and words. Knows means, not images.

Blocks are counted from 0, as everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.report.running import Estimate, Float
from models.manifest import Stage


@dataclass(frozen=True)
class Verdict:
    """On one model at one stage."""

    stage: Stage
    threshold: float
    similar: tuple[int, ...]  # by Eq. 2: the column cosine to the block before is above
    collapsed: tuple[int, ...]  # similar, and the row cosine is above too
    undecided: tuple[int, ...]  # the threshold lies in the interval of the column cosine
    donor: int  # of attention reuse, by the paper's rule
    donor_by_rows: int  # the same where rows have to be alike as well
    words: str


def judge(
    stage: Stage, threshold: float, column: Estimate, row: Estimate, centred: Estimate
) -> Verdict:
    """From the similarities of all pairs of blocks, [L, L] each."""
    depth = len(column.mean)
    later = range(1, depth)
    columns, rows, middles = (neighbours(estimate.mean) for estimate in (column, row, centred))
    similar = tuple(block for block in later if columns[block] > threshold)
    collapsed = tuple(block for block in similar if rows[block] > threshold)
    low, high = neighbours(column.low), neighbours(column.high)
    donor, donor_by_rows = _donor(depth, similar), _donor(depth, collapsed)
    return Verdict(
        stage=stage,
        threshold=threshold,
        similar=similar,
        collapsed=collapsed,
        undecided=tuple(block for block in later if low[block] <= threshold < high[block]),
        donor=donor,
        donor_by_rows=donor_by_rows,
        words=" ".join(
            [
                _on_blocks(depth, similar, collapsed, columns, rows, threshold),
                _on_centred(similar, middles, threshold),
                _on_reuse(depth, donor, donor_by_rows),
            ]
        ).replace("  ", " "),
    )


def neighbours(matrix: Float) -> Float:
    """Each block with the one before it: [L, L] to [L], NaN for block 0, which has none."""
    return np.concatenate([[np.nan], np.diagonal(matrix, offset=-1)])


def blocks_in_words(blocks: Sequence[int]) -> str:
    """As `block 3` or `blocks 1, 4 to 7 and 9`."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = " and ".join([*filter(None, [", ".join(texts[:-1])]), texts[-1]])
    return f"block{'s' if len(blocks) > 1 else ''} {listed}"


def _donor(depth: int, alike: Sequence[int]) -> int:
    """The last block that is not like the one before it: all later ones are."""
    return max(set(range(depth)) - set(alike))


def _on_blocks(
    depth: int,
    similar: Sequence[int],
    collapsed: Sequence[int],
    columns: Float,
    rows: Float,
    threshold: float,
) -> str:
    if depth == 1:
        return "A single block has no other to be like."
    if not similar:
        return (
            f"No block has collapsed: by Eq. 2 (column cosine) none of {depth - 1} is more than "
            f"{threshold:g} like the one before it; neighbours are {_span(columns[1:])} alike."
        )
    found = (
        f"{len(similar)} of {depth - 1} blocks are similar to the one before by Eq. 2 (column "
        f"cosine {_span(columns[list(similar)])}, above {threshold:g}). "
    )
    striped = [block for block in similar if block not in collapsed]
    if collapsed:
        found += (
            f"{len(collapsed)} of them have collapsed, {blocks_in_words(collapsed)}: their rows "
            f"are alike too ({_span(rows[list(collapsed)])}). "
        )
    else:
        found += "None has collapsed. "
    if striped:
        found += (
            f"In {blocks_in_words(striped)} only columns are alike (row cosine "
            f"{_span(rows[striped])}): queries attend alike within a block, but not to the same "
            "keys as in the block before."
        )
    return found


def _on_centred(similar: Sequence[int], middles: Float, threshold: float) -> str:
    """Whether similar blocks share more than the mean of their columns."""
    if not similar:
        return ""
    above = [block for block in similar if middles[block] > threshold]
    span = f"centred, the cosine is {_span(middles[list(similar)])}"
    if len(above) == len(similar):
        return f"More than the columns' means is shared: {span}."
    if above:
        return f"In {blocks_in_words(above)} more than the columns' means is shared: {span}."
    return f"What similar blocks share is the mean of each column: {span}."


def _on_reuse(depth: int, donor: int, donor_by_rows: int) -> str:
    if donor == depth - 1:
        return (
            f"Attention reuse finds nothing to share: its donor would be block {donor}, the last."
        )
    words = (
        f"Attention reuse would take block {donor} as donor and share its map with "
        f"{blocks_in_words(range(donor + 1, depth))}"
    )
    if donor_by_rows == donor:
        return f"{words}."
    if donor_by_rows == depth - 1:
        return f"{words}; where rows have to be alike as well, with none."
    return (
        f"{words}; where rows have to be alike as well, the donor is block {donor_by_rows}, for "
        f"{blocks_in_words(range(donor_by_rows + 1, depth))}."
    )


def _span(values: Float) -> str:
    low, high = (f"{value:.3f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
