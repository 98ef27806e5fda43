"""Draws the similarity of blocks, heads and features as one picture of matrices and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec

from models.arrays import Float32Array
from service.explain.render import figures

_DPI = 150
_WIDTH = 11.0  # in inches, like all lengths here
_LEFT, _RIGHT, _TOP = 0.6, 0.85, 1.05
_SPACE, _BOTTOM = 0.95, 0.75  # below a row, for ticks, a legend and the next title
_MATRIX_SIDES = {1: 5.6, 3: 2.6}  # by the number of matrices
_CURVE_HEIGHT = 1.7
_TILES_PER_ROW = 8  # matrices of heads
_TILE_HEIGHT = 1.25
_DOT_THRESHOLD = 0.25  # cosines below its negative are marked with a dot
_MIN_NUMBERED_CELL = 0.25  # a number does not fit into a smaller cell
_BLUE, _ORANGE = "#0b4f8a", "#b5500b"


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
    heights = [_MATRIX_SIDES[len(picture.matrices)], _CURVE_HEIGHT, tile_rows * _TILE_HEIGHT]
    if picture.entropy is not None:
        heights.append(_CURVE_HEIGHT)
    bottom = _BOTTOM if picture.entropy is not None else _BOTTOM / 2
    height = _TOP + sum(heights) + _SPACE * (len(heights) - 1) + bottom
    with figures.style():
        figure = figures.new_figure(_WIDTH, height, _DPI)
        dots = f"dot: cosine below {figures.format_number(-_DOT_THRESHOLD, 2)}"
        lines = [picture.title, f"{picture.subtitle}; {dots}", picture.verdict]
        for number, line in enumerate(lines):
            size, weight = (11, "bold") if number == 0 else (8, "normal")
            position = (0.2 / _WIDTH, 1 - (0.25 + 0.2 * number) / height)
            figure.text(*position, line, va="center", size=size, weight=weight)
        rows = GridSpec(
            len(heights),
            1,
            figure,
            left=_LEFT / _WIDTH,
            right=1 - _RIGHT / _WIDTH,
            top=1 - _TOP / height,
            bottom=bottom / height,
            hspace=_SPACE / (sum(heights) / len(heights)),
            height_ratios=heights,
        )
        _draw_matrices(figure, rows[0], picture)
        _draw_cosines(figure, rows[1], picture)
        _draw_heads(figure, rows[2], picture)
        if picture.entropy is not None:
            _draw_entropy_and_distance(figure, rows[3], picture)
        return figures.to_png(figure, lines)


def _draw_matrices(figure: Figure, area: SubplotSpec, picture: SimilarityPicture) -> None:
    columns = area.subgridspec(1, len(picture.matrices), wspace=0.45)
    cell = _MATRIX_SIDES[len(picture.matrices)] / len(picture.blocks)
    for column, (variant, matrix) in enumerate(picture.matrices.items()):
        signed = picture.signed or variant == "centred"
        colours = figures.colour_scale(1, signed=signed).to_rgba(matrix)
        axes = figure.add_subplot(columns[column], title=f"Blocks, {variant} cosine")
        axes.imshow(colours, interpolation="nearest")
        _set_block_ticks(axes, picture.blocks)
        axes.set_yticks(range(len(picture.blocks)), _tick_labels(picture.blocks, ""))
        axes.set_xlabel("block")
        if cell >= _MIN_NUMBERED_CELL:
            for (row, block), value in np.ndenumerate(matrix):
                if np.isnan(value):  # not defined, which has no colour either
                    continue
                text = figures.format_number(float(value), 2)
                ink = figures.readable_on(colours[row, block])
                axes.text(block, row, text, ha="center", va="center", size=24 * cell, color=ink)
        else:  # colour alone must not convey the sign
            _draw_dots(axes, matrix, left=-0.5, top=-0.5, cell=1)
        _draw_bar(figure, axes, 0.04, signed=signed)


def _draw_cosines(figure: Figure, area: SubplotSpec, picture: SimilarityPicture) -> None:
    columns = area.subgridspec(1, 3, width_ratios=(1.5, 1, 1), wspace=0.24)
    depth, heads = picture.heads.shape[:2]
    blocks = np.arange(depth)

    def plot(column: int, title: str) -> Axes:
        axes = figure.add_subplot(columns[column], title=title, ylabel="cosine")
        axes.set_ylim(-1.05 if picture.signed else -0.05, 1.05)
        _style_curve(axes, picture.blocks)
        return axes

    axes = plot(0, "Each block and the one before it, column cosine")
    similar = picture.neighbours > picture.threshold
    axes.plot(blocks[1:], picture.neighbours, color=_BLUE, label="mean")
    for mask, face, label in ((similar, _BLUE, "similar"), (~similar, "white", "not similar")):
        axes.plot(
            blocks[1:][mask], picture.neighbours[mask], "o", color=_BLUE, mfc=face, label=label
        )
    axes.plot(
        blocks[1:],
        picture.above_threshold,
        "s:",
        color=_ORANGE,
        label="share of (head, token) pairs above",
    )
    axes.axhline(picture.threshold, color=figures.INK, linestyle="--", linewidth=0.8)
    axes.text(depth - 0.45, picture.threshold, f"{picture.threshold:g}", va="center", size=7)
    _draw_legend(axes)

    axes = plot(1, "Features, cosine to the last block's")
    axes.set_ylim(-1.05 if picture.features.min() < 0 else -0.05, 1.05)
    axes.plot(blocks, picture.features, "o-", color=_BLUE)

    axes = plot(2, "Heads of a block, column cosine")
    if heads > 1:
        pairs = picture.heads[:, *np.triu_indices(heads, 1)]  # [L, H (H - 1) / 2]
        axes.fill_between(
            blocks, pairs.min(axis=1), pairs.max(axis=1), color=_BLUE, alpha=0.2, linewidth=0,
            label="all pairs",
        )  # fmt: skip
        axes.plot(blocks, pairs.mean(axis=1), "o-", color=_BLUE, label="mean")
        _draw_legend(axes)


def _draw_heads(figure: Figure, area: SubplotSpec, picture: SimilarityPicture) -> None:
    """One matrix per block, in reading order."""
    colours = figures.colour_scale(1, signed=picture.signed)
    heads = picture.heads.shape[1]
    axes = figure.add_subplot(area, title=f"Heads of each block ({heads} x {heads}), column cosine")
    axes.set_axis_off()
    for block, matrix in enumerate(picture.heads):
        row, column = divmod(block, _TILES_PER_ROW)
        left, top = 1.15 * column, 1.3 * row
        axes.imshow(
            colours.to_rgba(matrix),
            interpolation="nearest",
            extent=(left, left + 1, top + 1, top),
        )
        _draw_dots(axes, matrix, left=left, top=top, cell=1 / heads)
        axes.text(left, top - 0.04, f"block {picture.blocks[block]}", va="bottom", size=7)
    rows = -(-len(picture.blocks) // _TILES_PER_ROW)
    axes.set(
        xlim=(0, 1.15 * _TILES_PER_ROW), ylim=(1.3 * rows - 0.3, -0.25), aspect="equal", anchor="W"
    )
    _draw_bar(figure, axes, 0.012, signed=picture.signed)


def _draw_entropy_and_distance(
    figure: Figure, area: SubplotSpec, picture: SimilarityPicture
) -> None:
    columns = area.subgridspec(1, 2, wspace=0.18)
    for column, (values, title, unit) in enumerate(
        (
            (picture.entropy, "Entropy of attention", "nats"),
            (picture.attention_distance, "Attention distance", "input pixels"),
        )
    ):
        assert values is not None
        axes = figure.add_subplot(columns[column], title=title, ylabel=unit)
        _style_curve(axes, picture.blocks)
        blocks = np.arange(len(values))
        axes.plot(
            blocks,
            values,
            "_",
            color=figures.MUTED,
            label=["each head"] + [None] * (values.shape[1] - 1),
        )
        axes.plot(blocks, values.mean(axis=1), "o-", color=_BLUE, label="mean of heads")
        axes.set_ylim(bottom=0)
        if column == 0:
            maximum = picture.max_entropy
            label = f"uniform attention: {maximum:.2f}"
            axes.axhline(maximum, color=figures.INK, linestyle="--", linewidth=0.8, label=label)
            axes.set_ylim(top=1.08 * maximum)
        _draw_legend(axes)


def _style_curve(axes: Axes, blocks: Sequence[str]) -> None:
    _set_block_ticks(axes, blocks)
    axes.set_xlim(-0.5, len(blocks) - 0.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _set_block_ticks(axes: Axes, blocks: Sequence[str]) -> None:
    axes.set_xticks(range(len(blocks)), _tick_labels(blocks, "\n"), linespacing=0.9)


def _tick_labels(blocks: Sequence[str], separator: str) -> list[str]:
    """Block numbers and asterisks; with many blocks, only some have their number."""
    every = -(-len(blocks) // 20)
    return [
        f"{block.rstrip('*') if index % every == 0 else ''}{separator}{'*' * block.endswith('*')}"
        for index, block in enumerate(blocks)
    ]


def _draw_legend(axes: Axes) -> None:
    axes.legend(ncols=4, loc="upper left", bbox_to_anchor=(-0.02, -0.2), columnspacing=1)


def _draw_dots(axes: Axes, matrix: Float32Array, *, left: float, top: float, cell: float) -> None:
    rows, columns = np.nonzero(matrix < -_DOT_THRESHOLD)
    x, y = left + (columns + 0.5) * cell, top + (rows + 0.5) * cell
    axes.plot(x, y, ".", color="white", markersize=2)


def _draw_bar(figure: Figure, axes: Axes, width: float, *, signed: bool) -> None:
    label = f"fixed scale, {figures.format_number(-1, 0) if signed else 0} to 1"
    bar_axes = axes.inset_axes((1 + width / 2, 0, width, 1))
    figures.draw_bar(figure, figures.colour_scale(1, signed=signed), bar_axes, label)
    bar_axes.set_yticks(np.linspace(-1 if signed else 0, 1, 5))
