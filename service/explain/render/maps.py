"""Draws attention maps as one picture: labelled panels and colour bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from models.arrays import Float32Array, Pixels
from models.size import Size
from service.explain.render import Scale, figures
from service.explain.render.layout import Box, Layout

Colours = Float32Array  # [..., 3], from 0 to 1

_DPI = 100
_OPACITY = 0.65  # of a map over the input image
_FRAME = 0.55  # grey level of the line around a panel
_MIN_DOTTED_CELL = 5  # pixels: a dot in a smaller cell would not be visible
_MIN_NUMBERED_CELL = Size(16, 38)  # pixels: a number does not fit into a smaller cell
_DOT_THRESHOLD = 0.25  # of the limit: smaller negative values get no dot


@dataclass(frozen=True)
class MapsPicture:
    """What to draw: maps [rows, columns, h, w] and the text around them."""

    maps: Float32Array
    title: str
    subtitles: Sequence[str]  # one line each
    notes: Sequence[str]  # on how to read the picture; joined into one line
    rows: Sequence[str]
    columns: Sequence[str]
    quantity: str  # what the values are
    signed: bool  # centre the scale on zero
    scale: Scale = "all"
    cell: Size | None = None  # the proportions in which a value is drawn; a square if None
    background: Pixels | None = None  # [height, width, 3]
    query_patch: tuple[int, int] | None = None  # row and column of the patch to outline


def render_maps(picture: MapsPicture) -> bytes:
    """A PNG in which every value is a rectangle of one colour, without smoothing.

    The scale is centred on zero for signed values, else it starts at zero. Raises
    `AnswerTooLarge`.
    """
    background = picture.background
    size = None if background is None else Size(*background.shape[:2])
    layout = Layout.of(picture.maps.shape, picture.scale, picture.cell, size)
    with figures.style():
        return _Drawing(picture, layout).png()


class _Drawing:
    def __init__(self, picture: MapsPicture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self._maps = picture.maps.reshape(-1, *picture.maps.shape[2:])
        self._limits = _scale_limits(picture.maps, picture.scale).ravel()
        self._cell = layout.panel_size // Size(*self._maps.shape[1:])
        self._unit_scale = figures.colour_scale(1, signed=picture.signed)

    def png(self) -> bytes:
        layout = self._layout
        canvas = np.ones((layout.height, layout.width, 3), np.float32)
        for index in range(len(self._maps)):
            left, top, right, bottom = layout.panel(index)
            canvas[top - 1 : bottom + 1, left - 1 : right + 1] = _FRAME
            canvas[top:bottom, left:right] = self._panel(index)
        figure = figures.new_figure(layout.width / _DPI, layout.height / _DPI, _DPI)
        figure.figimage(canvas, zorder=-1)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
        axes.set_axis_off()
        axes.patch.set_alpha(0)
        self._draw_text(axes)
        self._draw_bars(figure)
        return figures.to_png(figure, self._header)

    def _panel(self, index: int) -> Colours:
        picture, size = self._picture, self._layout.panel_size
        panel = _enlarge(self._colours(index), size)
        if picture.background is not None:
            grey = picture.background.mean(axis=-1, keepdims=True).astype(np.float32) / 255
            panel = _OPACITY * panel + (1 - _OPACITY) * _enlarge(grey, size)
        if self._dotted:
            (height, width), half = self._cell, min(3, min(self._cell) // 8)
            for row, column in np.argwhere(
                self._maps[index] < -_DOT_THRESHOLD * self._limits[index]
            ):
                y, x = row * height + height // 2, column * width + width // 2
                panel[y - half : y + half + 1, x - half : x + half + 1] = 1
        if picture.query_patch is not None:
            (row, column), (height, width) = picture.query_patch, self._cell
            top, left = row * height, column * width
            _outline(panel, (left, top, left + width, top + height), 0)
            _outline(panel, (left + 1, top + 1, left + width - 1, top + height - 1), 1)
        return panel

    def _colours(self, index: int) -> Colours:
        colours: Colours = self._unit_scale.to_rgba(self._maps[index] / self._limits[index])
        return colours[..., :3].astype(np.float32)

    @property
    def _numbered(self) -> bool:
        room = (have >= need for have, need in zip(self._cell, _MIN_NUMBERED_CELL, strict=True))
        return self._picture.background is None and all(room)

    @property
    def _dotted(self) -> bool:
        """Colour alone must not convey the sign: cells without a number get a dot if negative."""
        visible = min(self._cell) >= _MIN_DOTTED_CELL
        return self._picture.signed and visible and not self._numbered

    @property
    def _header(self) -> list[str]:
        picture = self._picture
        notes = list(picture.notes)
        if self._dotted:
            notes.append(
                f"dot: below {figures.format_number(-100 * _DOT_THRESHOLD, 0)}% of the scale"
            )
        if picture.background is not None:
            notes.append(f"over the image at {_OPACITY:.0%}")
        if self._layout.captions:
            notes.append("below each map: its limits")
        return [picture.title, *picture.subtitles, "; ".join(notes)]

    def _draw_text(self, axes: Axes) -> None:
        picture, layout = self._picture, self._layout
        title, *lines = self._header
        axes.text(16, 24, title, va="center", size=10, weight="bold")
        for number, line in enumerate(lines, 1):
            axes.text(16, 24 + 16 * number, line, va="center")
        for index in range(len(self._maps)):
            row, column = divmod(index, len(picture.columns))
            left, top, right, bottom = layout.panel(index)
            middle = (left + right) / 2
            if layout.wrapped:
                label = f"{picture.rows[row]}, {picture.columns[column]}"
                axes.text(left, top - 8, label, va="center", size=7)
            else:
                if row == 0:
                    label = picture.columns[column]
                    axes.text(middle, top - 9, label, ha="center", va="center", size=8)
                if column == 0:
                    label = picture.rows[row]
                    axes.text(left - 8, (top + bottom) / 2, label, ha="right", va="center", size=8)
            if layout.captions:
                axes.text(
                    middle, bottom + 9, self._caption(index), ha="center", va="center", size=7
                )
            if self._numbered:
                self._draw_numbers(axes, index)

    def _caption(self, index: int) -> str:
        limit = figures.format_number(self._limits[index], _decimals(self._limits[index]))
        return f"±{limit}" if self._picture.signed else f"0 to {limit}"

    def _draw_numbers(self, axes: Axes, index: int) -> None:
        left, top, *_ = self._layout.panel(index)
        decimals = _decimals(self._limits[index])
        colours = self._colours(index)
        for (row, column), value in np.ndenumerate(self._maps[index]):
            axes.text(
                left + (column + 0.5) * self._cell.width,
                top + (row + 0.5) * self._cell.height,
                figures.format_number(value, decimals),
                ha="center",
                va="center",
                size=min(9, self._cell.width / 6),
                color=figures.readable_on(colours[row, column]),
            )

    def _draw_bars(self, figure: Figure) -> None:
        picture, layout = self._picture, self._layout
        if layout.captions:
            label = f"{picture.quantity}, as a fraction of the map's limit"
            self._draw_bar(figure, self._unit_scale, layout.bar(None), label)
            return
        for row in range(len(picture.rows)) if layout.row_bars else (None,):
            limit = self._limits[(row or 0) * len(picture.columns)]
            colours = figures.colour_scale(limit, signed=picture.signed)
            self._draw_bar(figure, colours, layout.bar(row), picture.quantity)

    def _draw_bar(self, figure: Figure, colours: ScalarMappable, box: Box, label: str) -> None:
        left, top, right, bottom = box
        width, height = self._layout.width, self._layout.height
        area = (left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height)
        figures.draw_bar(figure, colours, figure.add_axes(area), label)


def _scale_limits(maps: Float32Array, scale: Scale) -> Float32Array:
    """The largest absolute value on the scale of each map. [rows, columns]"""
    axes = {"map": (2, 3), "block": (1, 2, 3), "all": (0, 1, 2, 3)}[scale]
    largest = np.abs(maps).max(axis=axes, keepdims=True)[..., 0, 0]
    return np.broadcast_to(np.where(largest > 0, largest, 1), maps.shape[:2])


def _decimals(largest: float) -> int:
    """The number of decimals that shows three significant digits."""
    return max(0, 2 - int(np.floor(np.log10(largest))))


def _enlarge(pixels: Colours, size: Size) -> Colours:
    """Nearest-neighbour enlargement of [h, w, c] to [*size, c]."""
    down, across = size // Size(*pixels.shape[:2])
    return pixels.repeat(down, axis=0).repeat(across, axis=1)


def _outline(panel: Colours, box: Box, grey: float) -> None:
    left, top, right, bottom = box
    panel[[top, bottom - 1], left:right] = grey
    panel[top:bottom, [left, right - 1]] = grey
