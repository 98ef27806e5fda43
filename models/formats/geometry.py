"""The input size that belongs to a number of patches.

Positions only tell how many patches there are: 144 are 12 x 12 or 9 x 16. What the file or its
architecture's name says decides; a square is assumed only where nothing is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.formats.source import CheckpointError
from models.size import Size


@dataclass(frozen=True)
class StatedSize:
    """An input size in pixels, and who says so, for messages."""

    size: Size
    by: str


def as_size(value: Any) -> Size | None:
    """An input size as files write it: 224, [224, 256] or [3, 224, 256]; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Size.of(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (2, 3):
        height, width = value[-2:]
        if all(isinstance(side, int) and side > 0 for side in (height, width)):
            return Size(height, width)
    return None


def grid_of(patches: int, patch: Size, stated: Sequence[StatedSize], key: str) -> tuple[Size, str]:
    """Rows and columns of patches, and a note where a square had to be assumed.

    `key` is the tensor that has a position for each patch. Raises `CheckpointError` if no stated
    size has as many patches.
    """
    for one in stated:
        grid = one.size // patch
        if not any(one.size % patch) and grid.area == patches:
            return grid, ""
    if stated:
        said = "; ".join(f"{one.by} says {one.size} pixels" for one in stated)
        raise CheckpointError(
            f"{key} holds {patches} patches of {patch}, but {said}: say with --img-size "
            "HEIGHTxWIDTH what the network was trained on"
        )
    side = math.isqrt(max(patches, 0))
    if side**2 != patches or not patches:
        raise CheckpointError(
            f"{key} holds {patches} patches, which is not a square grid: say with --img-size "
            "HEIGHTxWIDTH what the network was trained on"
        )
    grid = Size.of(side)
    size = Size(side * patch.height, side * patch.width)
    return grid, f"a square grid assumed: {patches} patches of {patch} are {size} pixels"
