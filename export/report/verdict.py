"""Whether attention has collapsed, in words. The definitions are those of models/collapse.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.report.running import Estimate
from models import collapse
from models.arrays import Float64Array
from models.stages import Stage


@dataclass(frozen=True)
class Verdict:
    """What was found for one model at one stage; blocks by their numbers."""

    stage: Stage
    threshold: float
    similar: tuple[int, ...]
    collapsed: tuple[int, ...]
    alike_up_to_sign: tuple[int, ...]
    undecided: tuple[int, ...]  # the threshold is in a confidence interval that decides
    donor: int  # for attention reuse, by the paper's rule: all later blocks are similar
    donor_by_rows: int  # by the stricter rule: all later blocks have collapsed
    sentences: tuple[str, ...]


def judge(
    stage: Stage,
    threshold: float,
    column: Estimate,
    row: Estimate,
    centred: Estimate,
    above: Float64Array | None = None,
    below: Float64Array | None = None,
    evenness: Float64Array | None = None,
) -> Verdict:
    """Judge a model by the similarities of all pairs of blocks, [L, L] each.

    `above` and `below` [L] are the shares of (head, token) pairs above the threshold and below
    its negative; they matter where maps have negative entries.
    `evenness` [L], at the softmax stage, is entropy as a share of that of uniform attention.
    """
    depth = len(column.mean)
    columns, rows, middles = (
        collapse.neighbours(estimate.mean) for estimate in (column, row, centred)
    )
    similar = collapse.similar_blocks(columns, threshold)
    collapsed = collapse.collapsed_blocks(columns, rows, threshold)
    above, below = (np.zeros(depth) if share is None else share for share in (above, below))
    signed = collapse.blocks_alike_up_to_sign(above, below, similar)
    close, close_by_rows = _close(column, threshold), _close(row, threshold)
    donor, donor_by_rows = collapse.donor(depth, similar), collapse.donor(depth, collapsed)
    return Verdict(
        stage=stage,
        threshold=threshold,
        similar=similar,
        collapsed=collapsed,
        alike_up_to_sign=signed,
        undecided=tuple(sorted(close | {*similar} & close_by_rows)),
        donor=donor,
        donor_by_rows=donor_by_rows,
        sentences=tuple(
            sentence
            for sentence in (
                _on_similar(stage, similar, columns, threshold),
                _on_collapsed(similar, collapsed, rows),
                _on_striped(similar, collapsed, rows),
                _on_centred(similar, middles, threshold),
                _on_evenness(similar, evenness),
                _on_signs(signed, above, below, threshold),
                _on_reuse(depth, donor, donor_by_rows),
            )
            if sentence
        ),
    )


def blocks_in_words(blocks: Sequence[int]) -> str:
    """`block 3`, or `blocks 1, 4 to 7 and 9`."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = " and ".join([*filter(None, [", ".join(texts[:-1])]), texts[-1]])
    return f"block{'s' if len(blocks) > 1 else ''} {listed}"


def _close(matrix: Estimate, threshold: float) -> set[int]:
    """Blocks whose confidence interval contains the threshold."""
    low, high = collapse.neighbours(matrix.low), collapse.neighbours(matrix.high)
    return set(np.flatnonzero((low <= threshold) & (threshold < high)).tolist())


def _on_similar(
    stage: Stage, similar: Sequence[int], columns: Float64Array, threshold: float
) -> str:
    others = len(columns) - 1
    if not others:
        return "A single block has no other to be like."
    if not similar:
        return (
            f"At the {stage} stage no block has collapsed: by Eq. 2 (column cosine) none of "
            f"{others} is above {threshold:g} with the one before it; neighbours are at "
            f"{_span(columns[1:])}."
        )
    return (
        f"At the {stage} stage {len(similar)} of {others} blocks are similar to the one before by "
        f"Eq. 2 (column cosine {_span(columns[list(similar)])}, above {threshold:g})."
    )


def _on_collapsed(similar: Sequence[int], collapsed: Sequence[int], rows: Float64Array) -> str:
    if not similar:
        return ""
    if not collapsed:
        return "None of them has collapsed."
    return (
        f"{len(collapsed)} of them {'has' if len(collapsed) == 1 else 'have'} collapsed, "
        f"{blocks_in_words(collapsed)}: rows are alike too "
        f"(row cosine {_span(rows[list(collapsed)])})."
    )


def _on_striped(similar: Sequence[int], collapsed: Sequence[int], rows: Float64Array) -> str:
    """Eq. 2 does not see which keys are attended when all queries attend alike."""
    striped = [block for block in similar if block not in collapsed]
    if not striped:
        return ""
    return (
        f"In {blocks_in_words(striped)} only columns are alike (row cosine "
        f"{_span(rows[striped])}): queries attend alike within a block, but not to the same keys "
        "as in the block before."
    )


def _on_centred(similar: Sequence[int], middles: Float64Array, threshold: float) -> str:
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


def _on_evenness(similar: Sequence[int], evenness: Float64Array | None) -> str:
    """Whether likeness may be mere uniformity: near-uniform maps are all alike."""
    if evenness is None or not similar:
        return ""
    span = f"the entropy of similar blocks is {_span(evenness[list(similar)])} of its maximum"
    near = [block for block in similar if evenness[block] > collapse.NEAR_UNIFORM]
    if not near:
        return f"Their maps are not uniform: {span}."
    return f"Attention is near uniform in {blocks_in_words(near)}: {span}."


def _on_signs(
    signed: Sequence[int], above: Float64Array, below: Float64Array, threshold: float
) -> str:
    """A mean near 0 may hide that nearly all vectors are alike, half of them with a minus."""
    if not signed:
        return ""
    return (
        f"But means hide opposite signs: in {blocks_in_words(signed)} most (head, token) pairs are "
        f"alike up to their sign, {_percent(above[list(signed)])} above {threshold:g} and "
        f"{_percent(below[list(signed)])} below -{threshold:g}."
    )


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


def _span(values: Float64Array) -> str:
    low, high = (f"{value:.3f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _percent(shares: Float64Array) -> str:
    low, high = (f"{100 * share:.0f}" for share in (shares.min(), shares.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"
