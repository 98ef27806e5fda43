"""Curves over the blocks of a model, with axes and a legend, on a part of a canvas.

Lines and marks are drawn in several times their size and averaged, which makes them smooth.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from models.arrays import Float32Array
from service.explain.render import Box
from service.explain.render.canvas import INK, MUTED, Canvas, text_length, ticks

Mark = Literal["dot", "ring", "square", "dash"]
Point = tuple[float, float]

TITLE, TEXT = 19, 15  # sizes of fonts, in pixels
_GRID = "#dddddd"
_FINER = 4
_MARGIN = 8  # around the axes, for marks at their ends
_LEGEND = 56  # from the axes to the middle of the legend
_SAMPLE = 32  # length of a line in the legend
_LINE, _THIN = 2.5, 1.5  # widths of lines
_RADIUS = 4.5  # of marks
_DASH, _DOT = (9, 5), 5  # a dash and the gap after it; from dot to dot
_MAX_NUMBERS = 20  # of more blocks, only some have their number


class Axes:
    """The axes of some curves. What is drawn first is behind; `finish` at the end."""

    def __init__(self, canvas: Canvas, box: Box, blocks: int, low: float, high: float) -> None:
        """`box` is for curves over so many blocks, with values from low to high."""
        self._canvas = canvas
        self._left, self._top, self._right, self._bottom = box
        self._blocks = blocks
        self._low, self._high = low, high
        width, height = box[2] - box[0], box[3] - box[1] + _LEGEND
        self._fine = Image.new(
            "RGB", ((width + 2 * _MARGIN) * _FINER, (height + 2 * _MARGIN) * _FINER), "white"
        )
        self._draw = ImageDraw.Draw(self._fine)
        self._words: list[tuple[float, float, str]] = []
        self._legend = float(self._left)  # where its next entry begins
        for value, _ in ticks(low, high, 6):
            self._lines([(self._left, self._y(value)), (self._right, self._y(value))], _GRID, 1)

    def band(self, low: Float32Array, high: Float32Array, colour: str, label: str) -> None:
        """Between two values of each block."""
        blocks = range(self._blocks)
        self._area([*self._points(blocks, low), *self._points(blocks, high)[::-1]], colour)
        x, y = self._entry(label)
        self._area([(x, y - 5), (x + _SAMPLE, y - 5), (x + _SAMPLE, y + 5), (x, y + 5)], colour)

    def curve(
        self,
        blocks: Iterable[int],
        values: Float32Array,
        colour: str,
        *,
        mark: Mark | None = None,
        dotted: bool = False,
        label: str | None = None,
    ) -> None:
        """A line through the values that are numbers, one a block, with marks on them."""
        points = self._points(blocks, values)
        shapes = [points]
        if label is not None:
            x, y = self._entry(label)
            shapes.append([(x, y), (x + _SAMPLE, y)])
        for shape in shapes:
            if dotted:
                self._dots(shape, colour)
            else:
                self._lines(shape, colour, _LINE)
        if mark is not None:
            middle = [] if label is None else [(x + _SAMPLE / 2, y)]
            self._marks([*points, *middle], mark, colour)

    def marks(
        self,
        blocks: Iterable[int],
        values: Float32Array,
        colour: str,
        mark: Mark,
        *,
        label: str | None = None,
    ) -> None:
        """Marks without a line."""
        points = self._points(blocks, values)
        if label is not None:
            x, y = self._entry(label)
            points.append((x + _SAMPLE / 2, y))
        self._marks(points, mark, colour)

    def level(self, value: float, *, words: str = "", label: str | None = None) -> None:
        """A dashed line at a value, with words at its right end."""
        y = self._y(value)
        spans = [(self._left, self._right, y)]
        self._words.append((self._right + 5, y, words))
        if label is not None:
            x, y = self._entry(label)
            spans.append((int(x), int(x) + _SAMPLE, y))
        dash, gap = _DASH
        for first, last, y in spans:
            for x in range(first, last, dash + gap):
                self._lines([(x, y), (min(x + dash, last), y)], INK, _THIN)

    def finish(self, title: str, unit: str, blocks: Sequence[str]) -> None:
        """Put all of it on the canvas, with a title, the unit of values and the names of blocks."""
        canvas, text = self._canvas, self._canvas.text
        corner = self._left - _MARGIN, self._top - _MARGIN
        canvas.image.paste(self._fine.reduce(_FINER), corner)
        canvas.line((self._left, self._top), (self._left, self._bottom), MUTED)
        canvas.line((self._left, self._bottom), (self._right, self._bottom), MUTED)
        text(self._left, self._top - 20, title, TITLE)
        length = 0
        for value, words in ticks(self._low, self._high, 6):
            height = round(self._y(value))
            canvas.line((self._left - 5, height), (self._left, height), MUTED)
            length = max(length, text(self._left - 10, height, words, TEXT, align="right"))
        middle = (self._top + self._bottom) / 2
        text(self._left - 22 - length, middle, unit, TEXT, align="centre", upwards=True)
        draw_blocks(canvas, self._left, self._right, self._bottom, blocks)
        for x, y, words in self._words:
            text(x, y, words, TEXT)

    def _entry(self, label: str) -> Point:
        """Where the legend's next line begins, before its label."""
        x, y = self._legend, self._bottom + _LEGEND
        self._words.append((x + _SAMPLE + 7, y, label))
        self._legend = x + _SAMPLE + 7 + text_length(label, TEXT) + 18
        return x, y

    def _y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._bottom - share * (self._bottom - self._top)

    def _points(self, blocks: Iterable[int], values: Float32Array) -> list[Point]:
        pitch = (self._right - self._left) / self._blocks
        return [
            (self._left + (block + 0.5) * pitch, self._y(value))
            for block, value in zip(blocks, values.tolist(), strict=True)
        ]

    def _at(self, point: Point) -> Point:
        """A place of the canvas in the finer picture."""
        x, y = point
        return (x - self._left + _MARGIN) * _FINER, (y - self._top + _MARGIN) * _FINER

    def _area(self, points: Sequence[Point], colour: str) -> None:
        defined = [self._at(point) for point in points if not math.isnan(point[1])]
        if len(defined) > 1:
            self._draw.polygon(defined, fill=colour)

    def _lines(self, points: Sequence[Point], colour: str, width: float) -> None:
        """From point to point, with gaps where there is none."""
        for start, end in pairwise(points):
            if not math.isnan(start[1] + end[1]):
                ends = [self._at(start), self._at(end)]
                self._draw.line(ends, fill=colour, width=round(width * _FINER))

    def _dots(self, points: Sequence[Point], colour: str) -> None:
        """As `_lines`, dotted."""
        for (x0, y0), (x1, y1) in pairwise(points):
            if not math.isnan(y0 + y1):
                count = max(1, round(math.hypot(x1 - x0, y1 - y0) / _DOT))
                for share in np.linspace(0, 1, count, endpoint=False).tolist():
                    self._ellipse((x0 + share * (x1 - x0), y0 + share * (y1 - y0)), _THIN, colour)

    def _marks(self, points: Iterable[Point], mark: Mark, colour: str) -> None:
        for point in points:
            x, y = point
            if math.isnan(y):
                continue
            if mark == "dash":
                self._lines([(x - _RADIUS, y), (x + _RADIUS, y)], colour, _THIN)
            elif mark == "square":
                self._lines([(x - _RADIUS, y), (x + _RADIUS, y)], colour, 2 * _RADIUS)
            else:
                self._ellipse(point, _RADIUS, colour)
                if mark == "ring":
                    self._ellipse(point, _RADIUS - _THIN, "white")

    def _ellipse(self, middle: Point, radius: float, colour: str) -> None:
        x, y = self._at(middle)
        radius *= _FINER
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def draw_blocks(canvas: Canvas, left: int, right: int, y: int, blocks: Sequence[str]) -> None:
    """The names of blocks below an axis, with an asterisk in a line of its own."""
    pitch = (right - left) / len(blocks)
    for index, words in enumerate(block_words(blocks)):
        x = left + (index + 0.5) * pitch
        canvas.line((round(x), y), (round(x), y + 5), MUTED)
        canvas.text(x, y + 15, words.rstrip("*"), TEXT, align="centre")
        canvas.text(x, y + 31, "*" * words.endswith("*"), TEXT, align="centre")


def block_words(blocks: Sequence[str]) -> list[str]:
    """Block numbers and asterisks; of many blocks, only some have their number."""
    every = -(-len(blocks) // _MAX_NUMBERS)
    return [
        block if index % every == 0 else "*" * block.endswith("*")
        for index, block in enumerate(blocks)
    ]
