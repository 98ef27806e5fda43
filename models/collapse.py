"""Has attention collapsed? What counts as similar, as collapsed, and which block is the donor.

Similarities come in as arrays over blocks: entry b compares block b with the one before it, and
entry 0 is NaN, because block 0 has none before it. Blocks are counted from 0, as everywhere.
"""

from collections.abc import Collection
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Variant = Literal["column", "row", "centred"]
VARIANTS: tuple[Variant, ...] = ("column", "row", "centred")  # of the cosine in Eq. 2

THRESHOLD = 0.9  # of similarity, as in the paper
NEAR_UNIFORM = 0.95  # share of the largest entropy; maps this even are alike by themselves
_MOST = 0.5  # share of (head, token) pairs
_OPPOSITE = 0.05  # share of pairs of opposite sign from which the mean is misleading

_Float = TypeVar("_Float", bound=np.floating[Any])
_Floats = npt.NDArray[np.floating[Any]]


def by_block(pairs: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Values of each pair of neighbours, [.., L - 1], as values of blocks, [.., L]."""
    return np.pad(pairs, [*[(0, 0)] * (pairs.ndim - 1), (1, 0)], constant_values=np.nan)


def neighbours(matrix: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """The similarity of each block to the one before it: [L, L] to [L]."""
    return by_block(np.diagonal(matrix, offset=-1))


def similar_blocks(column: _Floats, threshold: float) -> tuple[int, ...]:
    """Blocks that are similar by Eq. 2: their column cosine is above the threshold."""
    return tuple(np.flatnonzero(column > threshold).tolist())


def collapsed_blocks(column: _Floats, row: _Floats, threshold: float) -> tuple[int, ...]:
    """Similar blocks that also attend to the same keys: their row cosine is above it too.

    Columns alone are alike as well where all queries of a block attend alike, whatever the keys.
    """
    return similar_blocks(np.minimum(column, row), threshold)


def blocks_alike_up_to_sign(
    above: _Floats, below: _Floats, similar: Collection[int]
) -> tuple[int, ...]:
    """Blocks that are not similar, although most of their (head, token) pairs are or are opposite.

    `above` and `below` are the shares of pairs beyond the threshold and below its negative.
    """
    signed = (above + below > _MOST) & (below >= _OPPOSITE)
    return tuple(block for block in np.flatnonzero(signed).tolist() if block not in similar)


def donor(depth: int, alike: Collection[int]) -> int:
    """The block whose map attention reuse shares with all later ones.

    It is the last block that is not `alike` the one before it, with similar blocks by the paper's
    rule, or with collapsed ones. The last block of all shares its map with none.
    """
    return max(set(range(depth)) - set(alike))
