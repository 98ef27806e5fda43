"""Draws the similarity of blocks, heads and features as one picture of matrices and curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import Float32Array
from service.explain.render import Box
from service.explain.render.canvas import MUTED, Canvas, add_dots, cells
from service.explain.render.colours import colours, readable_on
from service.explain.render.curves import TEXT, TITLE, Axes, block_words, draw_blocks

_DPI = 150
_WIDTH, _LEFT, _RIGHT, _TOP = 1650, 90, 125, 170  # in pixels, like all lengths here
_SPACE, _BOTTOM = 145, 95  # below a row: for ticks, a legend and the next title
_HEADING = 24  # size of the font
_MATRIX_SIDES = {1: 840, 3: 370}  # by the number of matrices
_CURVES = 255  # height
_CURVE_GAP = 100
_TILES_PER_ROW = 8  # matrices of heads
_TILE, _TILE_PITCH = 148, (172, 190)
_DOT_THRESHOLD = 0.25  # cosines below its negative are marked with a dot
_MIN_NUMBERED_CELL = 38  # a number does not fit into a smaller cell
_BLUE, _PALE_BLUE, _ORANGE = "#0b4f8a", "#cedce7", "#b5500b"


@dataclass(frozen=True)
class SimilarityPicture:
    """What to draw, and the text around it. L blocks, H heads."""

    title: str
    subtitle: str
    verdict: str
    blocks: Sequence[str]  # labels
    matrices: Mapping[str, Float32Array]  # variant: [L, L]
    signed: bool  # cosines of all variants can be negative, as maps can
    threshold: float
    neighbours: Float32Array  # [L - 1]
    above_threshold: Float32Array  # [L - 1]
    heads: Float32Array  # [L, H, H]
    features: Float32Array  # [L]
    entropy: Float32Array | None  # [L, H]
    max_entropy: float
    attention_distance: Float32Array | None  # [L, H]


def render_similarity(picture: SimilarityPicture) -> bytes:
    """A PNG; cosines have the same scale on every image: 0 to 1, or -1 to 1 if signed."""
    tile_rows = -(-len(picture.blocks) // _TILES_PER_ROW)
    heights = [_MATRIX_SIDES[len(picture.matrices)], _CURVES, tile_rows * _TILE_PITCH[1] - 40]
    if picture.entropy is not None:
        heights.append(_CURVES)
    tops = [_TOP + sum(heights[:row]) + row * _SPACE for row in range(len(heights) + 1)]
    canvas = Canvas(
        _WIDTH, tops[-1] - _SPACE + (_BOTTOM if picture.entropy is not None else _BOTTOM // 2)
    )
    dots = f"dot: cosine below {-_DOT_THRESHOLD:.2f}"
    title, *lines = header = [picture.title, f"{picture.subtitle}; {dots}", picture.verdict]
    canvas.heading(30, 38, title, _HEADING, bold=True)
    for number, line in enumerate(lines, 1):
        canvas.heading(30, 40 + 30 * number, line, TITLE)
    _draw_matrices(canvas, tops[0], picture)
    _draw_cosines(canvas, tops[1], picture)
    _draw_heads(canvas, tops[2], picture)
    if picture.entropy is not None:
        _draw_entropy_and_distance(canvas, tops[3], picture)
    return canvas.png(header, _DPI)


def _draw_matrices(canvas: Canvas, top: int, picture: SimilarityPicture) -> None:
    side, count = _MATRIX_SIDES[len(picture.matrices)], len(picture.blocks)
    pitch = (_WIDTH - _LEFT - _RIGHT - side) // max(1, len(picture.matrices) - 1)
    numbered = side // count >= _MIN_NUMBERED_CELL
    for number, (variant, matrix) in enumerate(picture.matrices.items()):
        left, signed = _LEFT + number * pitch, picture.signed or variant == "centred"
        box = _draw_matrix(canvas, (left, top), side, matrix, signed=signed, dots=not numbered)
        _, _, right, bottom = box
        canvas.text(left, top - 20, f"Blocks, {variant} cosine", TITLE)
        draw_blocks(canvas, left, right, bottom, picture.blocks)
        canvas.text((left + right) / 2, bottom + 52, "block", TEXT, align="centre")
        for row, words in enumerate(block_words(picture.blocks)):
            y = top + (row + 0.5) * (bottom - top) / count
            canvas.line((left - 6, round(y)), (left - 2, round(y)), MUTED)
            canvas.text(left - 11, y, words, TEXT, align="right")
        if numbered:
            _draw_numbers(canvas, box, matrix, signed=signed)
        _draw_bar(canvas, box, signed=signed)


def _draw_matrix(
    canvas: Canvas,
    corner: tuple[int, int],
    side: int,
    matrix: Float32Array,
    *,
    signed: bool,
    dots: bool,
) -> Box:
    """The largest that is a multiple of its cells; returns its place."""
    side = side // len(matrix) * len(matrix) or len(matrix)
    area = cells(colours(matrix, signed=signed), side, side)
    if dots:  # colour alone must not convey the sign
        add_dots(area, matrix < -_DOT_THRESHOLD)
    box = (*corner, corner[0] + side, corner[1] + side)
    canvas.rectangle(box, MUTED)
    canvas.image.paste(area, corner)
    return box


def _draw_numbers(canvas: Canvas, box: Box, matrix: Float32Array, *, signed: bool) -> None:
    cell = (box[2] - box[0]) // len(matrix)
    inks = colours(matrix, signed=signed)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):  # not defined, which has no colour either
            continue
        x, y = box[0] + (column + 0.5) * cell, box[1] + (row + 0.5) * cell
        size, ink = min(18, cell // 3), readable_on(inks[row, column])
        canvas.text(x, y, f"{value:.2f}", size, align="centre", ink=ink)


def _draw_bar(canvas: Canvas, matrix: Box, *, signed: bool) -> None:
    _, top, right, bottom = matrix
    label = f"fixed scale, {-1 if signed else 0} to 1"
    box = right + 14, top, right + 28, bottom
    canvas.colour_bar(box, 1, label, TEXT, signed=signed, values=4)


def _draw_cosines(canvas: Canvas, top: int, picture: SimilarityPicture) -> None:
    depth, heads = picture.heads.shape[:2]
    blocks, later = range(depth), range(1, depth)
    boxes = _columns(top, (1.5, 1, 1))
    low = _lowest(picture.signed)

    axes = Axes(canvas, next(boxes), depth, low, 1.05)
    axes.curve(later, picture.neighbours, _BLUE, label="mean")
    similar = picture.neighbours > picture.threshold
    above, others = (np.where(mask, picture.neighbours, np.nan) for mask in (similar, ~similar))
    axes.marks(later, above, _BLUE, "dot", label="similar")
    axes.marks(later, others, _BLUE, "ring", label="not similar")
    label = "share of (head, token) pairs above"
    axes.curve(later, picture.above_threshold, _ORANGE, mark="square", dotted=True, label=label)
    axes.level(picture.threshold, words=f"{picture.threshold:g}")
    axes.finish("Each block and the one before it, column cosine", "cosine", picture.blocks)

    axes = Axes(canvas, next(boxes), depth, _lowest(picture.features.min() < 0), 1.05)
    axes.curve(blocks, picture.features, _BLUE, mark="dot")
    axes.finish("Features, cosine to the last block's", "cosine", picture.blocks)

    axes = Axes(canvas, next(boxes), depth, low, 1.05)
    if heads > 1:
        pairs = picture.heads[:, *np.triu_indices(heads, 1)]  # [L, H (H - 1) / 2]
        axes.band(pairs.min(axis=1), pairs.max(axis=1), _PALE_BLUE, "all pairs")
        axes.curve(blocks, pairs.mean(axis=1), _BLUE, mark="dot", label="mean")
    axes.finish("Heads of a block, column cosine", "cosine", picture.blocks)


def _lowest(signed: bool) -> float:
    """The lower end of axes for cosines."""
    return -1.05 if signed else -0.05


def _draw_heads(canvas: Canvas, top: int, picture: SimilarityPicture) -> None:
    """One matrix per block, in reading order."""
    heads = picture.heads.shape[1]
    title = f"Heads of each block ({heads} x {heads}), column cosine"
    canvas.text(_LEFT, top - 20, title, TITLE)
    across, down = _TILE_PITCH
    for block, matrix in enumerate(picture.heads):
        row, column = divmod(block, _TILES_PER_ROW)
        corner = _LEFT + column * across, top + 24 + row * down
        _draw_matrix(canvas, corner, _TILE, matrix, signed=picture.signed, dots=True)
        canvas.text(corner[0], corner[1] - 12, f"block {picture.blocks[block]}", TEXT)
    columns = min(len(picture.blocks), _TILES_PER_ROW)
    right = _LEFT + (columns - 1) * across + _TILE
    _draw_bar(
        canvas, (_LEFT, top + 24, right, top + 24 + row * down + _TILE), signed=picture.signed
    )


def _draw_entropy_and_distance(canvas: Canvas, top: int, picture: SimilarityPicture) -> None:
    boxes = _columns(top, (1, 1))
    maximum = picture.max_entropy
    measures = (
        (picture.entropy, "Entropy of attention", "nats", 1.08 * maximum),
        (picture.attention_distance, "Attention distance", "input pixels", None),
    )
    for values, title, unit, high in measures:
        assert values is not None
        depth, heads = values.shape
        axes = Axes(canvas, next(boxes), depth, 0, high or 1.05 * float(values.max()) or 1)
        for head in range(heads):
            label = "each head" if not head else None
            axes.marks(range(depth), values[:, head], MUTED, "dash", label=label)
        axes.curve(range(depth), values.mean(axis=1), _BLUE, mark="dot", label="mean of heads")
        if high:
            axes.level(maximum, label=f"uniform attention: {maximum:.2f}")
        axes.finish(title, unit, picture.blocks)


def _columns(top: int, widths: Sequence[float]) -> Iterator[Box]:
    """Boxes of axes beside each other, in the proportions of `widths`."""
    unit = (_WIDTH - _LEFT - _RIGHT - _CURVE_GAP * (len(widths) - 1)) / sum(widths)
    left = _LEFT
    for width in widths:
        right = left + round(width * unit)
        yield left, top, right, top + _CURVES
        left = right + _CURVE_GAP
