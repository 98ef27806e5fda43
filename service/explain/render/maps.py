"""Draws attention maps as one picture: labelled panels and colour bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from models.arrays import Float32Array, Pixels
from models.size import Size
from service.explain.render import Scale
from service.explain.render.canvas import Canvas, add_dots, cells
from service.explain.render.colours import colours, readable_on
from service.explain.render.layout import Layout

_DPI = 100
_TITLE, _TEXT = 16, 12  # sizes of fonts, in pixels
_OPACITY = 0.65  # of a map over the input image
_FRAME = (140, 140, 140)  # of the line around a panel
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
    return _Drawing(picture, layout).png()


class _Drawing:
    def __init__(self, picture: MapsPicture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self._maps = picture.maps.reshape(-1, *picture.maps.shape[2:])
        self._limits = _scale_limits(picture.maps, picture.scale).ravel()
        self._cell = layout.panel_size // Size(*self._maps.shape[1:])
        scaled = self._maps / self._limits[:, None, None]
        self._colours = colours(scaled, signed=picture.signed)
        self._canvas = Canvas(layout.width, layout.height)

    def png(self) -> bytes:
        for index in range(len(self._maps)):
            box = self._layout.panel(index)
            self._canvas.rectangle(box, _FRAME)
            self._canvas.image.paste(self._panel(index), box[:2])
        self._draw_header()
        self._draw_labels()
        self._draw_bars()
        return self._canvas.png(self._header, _DPI)

    def _panel(self, index: int) -> Image.Image:
        height, width = self._layout.panel_size
        panel = cells(self._colours[index], width, height)
        if self._background is not None:
            panel = Image.blend(self._background, panel, _OPACITY)
        if self._dotted:
            add_dots(panel, self._maps[index] < -_DOT_THRESHOLD * self._limits[index])
        if self._picture.query_patch is not None:
            (row, column), (height, width) = self._picture.query_patch, self._cell
            left, top = column * width, row * height
            right, bottom = left + width - 1, top + height - 1
            draw = ImageDraw.Draw(panel)
            draw.rectangle((left, top, right, bottom), outline="black")
            draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="white")
        return panel

    @cached_property
    def _background(self) -> Image.Image | None:
        """The input in grey, as large as a panel."""
        if self._picture.background is None:
            return None
        grey = self._picture.background.mean(axis=-1, keepdims=True, dtype=np.float32)
        height, width = self._layout.panel_size
        return cells(grey.repeat(3, axis=-1).round().astype(np.uint8), width, height)

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
            notes.append(f"dot: below {-_DOT_THRESHOLD:.0%} of the scale")
        if picture.background is not None:
            notes.append(f"over the image at {_OPACITY:.0%}")
        if self._layout.captions:
            notes.append("below each map: its limits")
        return [picture.title, *picture.subtitles, "; ".join(notes)]

    def _draw_header(self) -> None:
        title, *lines = self._header
        self._canvas.heading(16, 24, title, _TITLE, bold=True)
        for number, line in enumerate(lines, 1):
            self._canvas.heading(16, 24 + 16 * number, line, _TEXT)

    def _draw_labels(self) -> None:
        picture, layout, text = self._picture, self._layout, self._canvas.text
        for index in range(len(self._maps)):
            row, column = divmod(index, len(picture.columns))
            left, top, right, bottom = layout.panel(index)
            middle = (left + right) / 2
            if layout.wrapped:
                label = f"{picture.rows[row]}, {picture.columns[column]}"
                text(left, top - 9, label, _TEXT)
            else:
                if row == 0:
                    text(middle, top - 10, picture.columns[column], _TEXT, align="centre")
                if column == 0:
                    text(left - 8, (top + bottom) / 2, picture.rows[row], _TEXT, align="right")
            if layout.captions:
                text(middle, bottom + 10, self._caption(index), _TEXT, align="centre")
            if self._numbered:
                self._draw_numbers(index)

    def _caption(self, index: int) -> str:
        limit = f"{self._limits[index]:.{_decimals(self._limits[index])}f}"
        return f"±{limit}" if self._picture.signed else f"0 to {limit}"

    def _draw_numbers(self, index: int) -> None:
        left, top, _, _ = self._layout.panel(index)
        height, width = self._cell
        decimals = _decimals(float(self._limits[index]))
        size = min(12, width // 4)
        for (row, column), value in np.ndenumerate(self._maps[index]):
            x, y = left + (column + 0.5) * width, top + (row + 0.5) * height
            ink = readable_on(self._colours[index, row, column])
            self._canvas.text(x, y, f"{value:.{decimals}f}", size, align="centre", ink=ink)

    def _draw_bars(self) -> None:
        picture, layout = self._picture, self._layout
        if layout.captions:
            label = f"{picture.quantity}, as a fraction of the map's limit"
            self._draw_bar(None, 1, label)
            return
        for row in range(len(picture.rows)) if layout.row_bars else (None,):
            limit = float(self._limits[(row or 0) * len(picture.columns)])
            self._draw_bar(row, limit, picture.quantity)

    def _draw_bar(self, row: int | None, limit: float, label: str) -> None:
        box, signed = self._layout.bar(row), self._picture.signed
        values = max(4, (box[3] - box[1]) // 50)
        self._canvas.colour_bar(box, limit, label, _TEXT, signed=signed, values=values)


def _scale_limits(maps: Float32Array, scale: Scale) -> Float32Array:
    """The largest absolute value on the scale of each map. [rows, columns]"""
    axes = {"map": (2, 3), "block": (1, 2, 3), "all": (0, 1, 2, 3)}[scale]
    largest = np.abs(maps).max(axis=axes, keepdims=True)[..., 0, 0]
    return np.broadcast_to(np.where(largest > 0, largest, 1), maps.shape[:2])


def _decimals(largest: float) -> int:
    """The number of decimals that shows three significant digits."""
    return max(0, 2 - int(np.floor(np.log10(largest))))
