"""The layout of a picture of maps: where its panels and colour bars are, in pixels."""

import math
from dataclasses import dataclass

from models.size import Size
from service.errors import AnswerTooLarge
from service.explain.render import Box, Scale

_PANELS = 640  # the longer side that all panels together should have
_MIN_PANEL = 80  # every panel has at least the area of a square with this side
_MIN_PITCH = 86  # from one panel to the next: a label or a caption fits into it
_MAX_PIXELS = 30_000_000
_GAP = 6
_LINE = 16  # height of a line of text
_HEADER = 4  # lines
_MARGIN = 16
_ROW_LABELS = 64
_BAR = 14  # width of a colour bar
_BAR_LABELS = 76
_MAX_BAR = 420
_MIN_WIDTH = 740  # the longest header fits into it
_MAX_SINGLE_LINE = 3  # more panels in one row or column are wrapped


@dataclass(frozen=True)
class Layout:
    """Panels below a header: a table with row and column labels, or a wrapped list."""

    rows: int
    columns: int
    panel_size: Size
    captions: bool  # the limits of its scale are printed below each panel
    row_bars: bool  # each row has a colour bar
    wrapped: bool  # a list: each panel has its own label above it

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        scale: Scale = "all",
        cell: Size | None = None,
        background: Size | None = None,
    ) -> "Layout":
        """The layout of maps [rows, columns, h, w], with values in the proportions of `cell`.

        Panels are a multiple of the size of the image behind the maps, `background`, or of the
        smallest panel of whole pixels, so that nothing is resampled. Raises `AnswerTooLarge`.
        """
        rows, columns = shape[:2]
        unit = background or _smallest_panel(Size(*shape[2:]), cell or Size(1, 1))
        row_bars = scale == "block" and columns > 1
        count = rows * columns
        wrapped = min(rows, columns) == 1 and count > _MAX_SINGLE_LINE and not row_bars
        if wrapped:
            columns = min(count, math.ceil(math.sqrt(count * unit.height / unit.width)))
            rows = math.ceil(count / columns)
        times = math.ceil(
            max(
                _MIN_PANEL / math.sqrt(unit.area),
                _PANELS / max(rows * unit.height, columns * unit.width),
            )
        )
        panel_size = Size(times * unit.height, times * unit.width)
        if rows * columns * panel_size.area > _MAX_PIXELS:
            raise AnswerTooLarge(
                f"{count} maps do not fit one picture; ask for fewer layers or heads"
            )
        captions = scale != "all" and not row_bars
        return cls(rows, columns, panel_size, captions, row_bars, wrapped)

    @property
    def left(self) -> int:
        return _MARGIN if self.wrapped else _ROW_LABELS + _MARGIN

    @property
    def top(self) -> int:
        return _MARGIN + _HEADER * _LINE + _LINE // 2 + (0 if self.wrapped else _LINE)

    @property
    def pitch(self) -> tuple[int, int]:
        """The distance from one panel to the next, horizontal and vertical."""
        lines = self.wrapped + self.captions
        height, width = self.panel_size
        return max(_MIN_PITCH, width + _GAP), height + _GAP + lines * _LINE

    @property
    def width(self) -> int:
        panels = self.left + self.columns * self.pitch[0] + _MARGIN
        return max(_MIN_WIDTH, panels + _BAR + _BAR_LABELS)

    @property
    def height(self) -> int:
        return self.top + self.rows * self.pitch[1] + _MARGIN

    def panel(self, index: int) -> Box:
        """The box of a panel; panels are numbered row by row."""
        row, column = divmod(index, self.columns)
        left = self.left + column * self.pitch[0]
        top = self.top + row * self.pitch[1] + self.wrapped * _LINE
        return left, top, left + self.panel_size.width, top + self.panel_size.height

    def bar(self, row: int | None) -> Box:
        """The box of the colour bar of one row, or of the whole picture."""
        left = self.left + self.columns * self.pitch[0] + _MARGIN
        top = self.panel((row or 0) * self.columns)[1]
        bottom = self.panel((self.rows - 1 if row is None else row) * self.columns)[3]
        return left, top, left + _BAR, min(bottom, top + _MAX_BAR)


def _smallest_panel(values: Size, cell: Size) -> Size:
    """Every value has a whole number of pixels, in the proportions of `cell`."""
    common = math.gcd(*cell)
    return Size(values.height * cell.height // common, values.width * cell.width // common)
