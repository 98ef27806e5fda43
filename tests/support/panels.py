"""The panels of a rendered picture, found in its pixels."""

import io

import matplotlib
import numpy as np
import numpy.typing as npt
from cmcrameri import cm
from PIL import Image

from models.arrays import Float64Array

Numbers = Float64Array
Canvas = npt.NDArray[np.int64]  # [height, width, 3], from 0 to 255

FRAME = (140, 140, 140)


def canvas_of(content: bytes) -> Canvas:
    with Image.open(io.BytesIO(content)) as picture:
        canvas = np.asarray(picture.convert("RGB")).astype(np.int64)
    margin = np.ones(canvas.shape[:2], bool)
    margin[6:-6, 6:-6] = False
    assert (canvas[margin] == 255).all(), "something is cut off"
    return canvas


def colours(values: Numbers, *, signed: bool) -> Numbers:
    """Colours of values from 0 or -1 to 1."""
    scale = cm.vik if signed else matplotlib.colormaps["viridis"]
    rgba: Numbers = scale((values + 1) / 2 if signed else values)
    return 255 * rgba[..., :3]


def framed(canvas: Canvas) -> Canvas:
    """The panels inside thin grey frames: [rows, columns, height, width, 3]."""
    frame = (canvas == FRAME).all(axis=-1)
    counts = [frame.sum(axis=axis) for axis in (1, 0)]  # the edges of letters have its grey too
    lines = [np.flatnonzero(count > count.max() / 2).reshape(-1, 2) for count in counts]
    return np.array(
        [[canvas[top + 1 : bottom, left + 1 : right] for left, right in lines[1]]
         for top, bottom in lines[0]]
    )  # fmt: skip


def corners(panels: Canvas, rows: int, columns: int | None = None) -> Canvas:
    """One pixel of each cell, away from its middle, where a number or a dot may be drawn.

    As many columns as rows, if only rows are given.
    """
    down, across = (
        ((np.arange(cells) + 0.2) * side / cells).astype(int)
        for cells, side in zip((rows, columns or rows), panels.shape[-3:-1], strict=True)
    )
    return panels[..., down[:, None], across, :]
