"""How alike blocks, heads and features are, as one sheet: matrices and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec

from models.arrays import Float32Array
from service.explain.render import figures

_DPI = 150
_WIDTH = 11.0  # inches, as all lengths
_LEFT, _RIGHT, _TOP = 0.6, 0.85, 1.05
_SPACE, _BOTTOM = 0.95, 0.75  # below a row: ticks, legend, and the next title
_MATRICES = {1: 5.6, 3: 2.6}  # sides, by how many there are
_CURVE = 1.7
_TILES = 8  # matrices of heads in a row
_TILE = 1.25
_FAINT = 0.25  # signs of cosines closer to zero are not marked
_NUMBERED = 0.25  # a cell that a number fits into
_BLUE, _ORANGE = "#0b4f8a", "#b5500b"


@dataclass(frozen=True)
class SimilarityPicture:
    """What to draw, and the words around it. L blocks, H heads."""

    title: str
    subtitle: str
    verdict: str
    blocks: Sequence[str]  # labels
    matrices: Mapping[str, Float32Array]  # variant: [L, L]
    signed: bool  # maps can be negative, and so can cosines of every variant
    threshold: float
    neighbours: Float32Array  # [L - 1]
    above_threshold: Float32Array  # [L - 1]
    heads: Float32Array  # [L, H, H]
    features: Float32Array  # [L]
    entropy: Float32Array | None  # [L, H]
    longest_entropy: float
    attention_distance: Float32Array | None  # [L, H]


def render_similarity(picture: SimilarityPicture) -> bytes:
    """A PNG; the scale of a cosine is the same for all images: 0 to 1, or -1 to 1 if signed."""
    tiles = -(-len(picture.blocks) // _TILES)
    heights = [_MATRICES[len(picture.matrices)], _CURVE, tiles * _TILE]
    if picture.entropy is not None:
        heights.append(_CURVE)
    bottom = _BOTTOM if picture.entropy is not None else _BOTTOM / 2
    height = _TOP + sum(heights) + _SPACE * (len(heights) - 1) + bottom
    with figures.style():
        figure = figures.new_figure(_WIDTH, height, _DPI)
        dots = f"dot: cosine below {figures.number(-_FAINT, 2)}"
        lines = [picture.title, f"{picture.subtitle}; {dots}", picture.verdict]
        for line, words in enumerate(lines):
            size, weight = (11, "bold") if line == 0 else (8, "normal")
            place = (0.2 / _WIDTH, 1 - (0.25 + 0.2 * line) / height)
            figure.text(*place, words, va="center", size=size, weight=weight)
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
        _matrices(figure, rows[0], picture)
        _cosines(figure, rows[1], picture)
        _heads(figure, rows[2], picture)
        if picture.entropy is not None:
            _attention(figure, rows[3], picture)
        return figures.to_png(figure, lines)


def _matrices(figure: Figure, place: SubplotSpec, picture: SimilarityPicture) -> None:
    columns = place.subgridspec(1, len(picture.matrices), wspace=0.45)
    cell = _MATRICES[len(picture.matrices)] / len(picture.blocks)
    for column, (variant, matrix) in enumerate(picture.matrices.items()):
        signed = picture.signed or variant == "centred"
        colours = figures.scale(1, signed=signed).to_rgba(matrix)
        axes = figure.add_subplot(columns[column], title=f"Blocks, {variant} cosine")
        axes.imshow(colours, interpolation="nearest")
        _block_ticks(axes, picture.blocks)
        axes.set_yticks(range(len(picture.blocks)), _labels(picture.blocks, ""))
        axes.set_xlabel("block")
        if cell >= _NUMBERED:
            for (row, block), value in np.ndenumerate(matrix):
                words = figures.number(float(value), 2)
                ink = figures.readable_on(colours[row, block])
                axes.text(block, row, words, ha="center", va="center", size=24 * cell, color=ink)
        else:  # a sign is told by more than colour
            _dots(axes, matrix, left=-0.5, top=-0.5, cell=1)
        _bar(figure, axes, 0.04, signed=signed)


def _cosines(figure: Figure, place: SubplotSpec, picture: SimilarityPicture) -> None:
    columns = place.subgridspec(1, 3, width_ratios=(1.5, 1, 1), wspace=0.24)
    depth, heads = picture.heads.shape[:2]
    blocks = np.arange(depth)

    def plot(column: int, title: str) -> Axes:
        axes = figure.add_subplot(columns[column], title=title, ylabel="cosine")
        axes.set_ylim(-1.05 if picture.signed else -0.05, 1.05)
        _curve(axes, picture.blocks)
        return axes

    axes = plot(0, "Each block and the one before it, column cosine")
    similar = picture.neighbours > picture.threshold
    axes.plot(blocks[1:], picture.neighbours, color=_BLUE, label="mean")
    for chosen, face, words in ((similar, _BLUE, "similar"), (~similar, "white", "not similar")):
        axes.plot(
            blocks[1:][chosen], picture.neighbours[chosen], "o", color=_BLUE, mfc=face, label=words
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
    _legend(axes)

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
        _legend(axes)


def _heads(figure: Figure, place: SubplotSpec, picture: SimilarityPicture) -> None:
    """A matrix a block, as lines of text run."""
    colours = figures.scale(1, signed=picture.signed)
    heads = picture.heads.shape[1]
    axes = figure.add_subplot(
        place, title=f"Heads of each block ({heads} x {heads}), column cosine"
    )
    axes.set_axis_off()
    for block, matrix in enumerate(picture.heads):
        row, column = divmod(block, _TILES)
        left, top = 1.15 * column, 1.3 * row
        axes.imshow(
            colours.to_rgba(matrix),
            interpolation="nearest",
            extent=(left, left + 1, top + 1, top),
        )
        _dots(axes, matrix, left=left, top=top, cell=1 / heads)
        axes.text(left, top - 0.04, f"block {picture.blocks[block]}", va="bottom", size=7)
    rows = -(-len(picture.blocks) // _TILES)
    axes.set(xlim=(0, 1.15 * _TILES), ylim=(1.3 * rows - 0.3, -0.25), aspect="equal", anchor="W")
    _bar(figure, axes, 0.012, signed=picture.signed)


def _attention(figure: Figure, place: SubplotSpec, picture: SimilarityPicture) -> None:
    columns = place.subgridspec(1, 2, wspace=0.18)
    for column, (values, title, unit) in enumerate(
        (
            (picture.entropy, "Entropy of attention", "nats"),
            (picture.attention_distance, "Attention distance", "input pixels"),
        )
    ):
        assert values is not None
        axes = figure.add_subplot(columns[column], title=title, ylabel=unit)
        _curve(axes, picture.blocks)
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
            longest = picture.longest_entropy
            words = f"uniform attention: {longest:.2f}"
            axes.axhline(longest, color=figures.INK, linestyle="--", linewidth=0.8, label=words)
            axes.set_ylim(top=1.08 * longest)
        _legend(axes)


def _curve(axes: Axes, blocks: Sequence[str]) -> None:
    _block_ticks(axes, blocks)
    axes.set_xlim(-0.5, len(blocks) - 0.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _block_ticks(axes: Axes, blocks: Sequence[str]) -> None:
    axes.set_xticks(range(len(blocks)), _labels(blocks, "\n"), linespacing=0.9)


def _labels(blocks: Sequence[str], between: str) -> list[str]:
    """Numbers and marks; marks stay where there is no room for all the numbers."""
    every = -(-len(blocks) // 20)
    return [
        f"{block.rstrip('*') if index % every == 0 else ''}{between}{'*' * block.endswith('*')}"
        for index, block in enumerate(blocks)
    ]


def _legend(axes: Axes) -> None:
    axes.legend(ncols=4, loc="upper left", bbox_to_anchor=(-0.02, -0.2), columnspacing=1)


def _dots(axes: Axes, matrix: Float32Array, *, left: float, top: float, cell: float) -> None:
    rows, columns = np.nonzero(matrix < -_FAINT)
    x, y = left + (columns + 0.5) * cell, top + (rows + 0.5) * cell
    axes.plot(x, y, ".", color="white", markersize=2)


def _bar(figure: Figure, axes: Axes, width: float, *, signed: bool) -> None:
    label = f"fixed scale, {figures.number(-1, 0) if signed else 0} to 1"
    beside = axes.inset_axes((1 + width / 2, 0, width, 1))
    figures.bar(figure, figures.scale(1, signed=signed), beside, label)
    beside.set_yticks(np.linspace(-1 if signed else 0, 1, 5))
