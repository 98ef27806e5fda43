"""Where the panels of a picture of maps lie, in pixels."""

import math
from dataclasses import dataclass

from service.errors import AnswerTooLarge

Box = tuple[int, int, int, int]  # left, top, right, bottom

_PICTURE = 640  # pixels a side that the panels together aim at
_PANEL = 80  # pixels a side of a panel, at least
_MAX_PIXELS = 30_000_000
_GAP = 6
_LINE = 16  # of text
_HEADER = 4  # lines
_MARGIN = 16
_ROW_LABELS = 64
_BAR = 14  # width of a colour bar
_BAR_LABELS = 76
_MAX_BAR = 420
_MIN_WIDTH = 740  # that the longest header fits into
_LIST = 3  # this many panels in one row or column are laid out as lines of text are


@dataclass(frozen=True)
class Layout:
    """A table of rows and columns, or a list of panels one after the other, below a header."""

    rows: int
    columns: int
    side: int
    captions: bool  # a line below each panel
    listed: bool  # each panel has its own label above it

    @classmethod
    def of(cls, rows: int, columns: int, unit: int, *, captions: bool, row_bars: bool) -> "Layout":
        """For so many panels, of a side that is a multiple of `unit`, so that nothing is resampled.

        Raises `AnswerTooLarge`.
        """
        count = rows * columns
        listed = min(rows, columns) == 1 and count > _LIST and not row_bars
        if listed:
            columns = math.ceil(math.sqrt(count))
            rows = math.ceil(count / columns)
        side = unit * math.ceil(max(_PANEL, _PICTURE / max(rows, columns)) / unit)
        if rows * columns * side**2 > _MAX_PIXELS:
            raise AnswerTooLarge(
                f"{count} maps do not fit one picture; ask for fewer layers or heads"
            )
        return cls(rows, columns, side, captions, listed)

    @property
    def left(self) -> int:
        return _MARGIN if self.listed else _ROW_LABELS + _MARGIN

    @property
    def top(self) -> int:
        return _MARGIN + _HEADER * _LINE + _LINE // 2 + (0 if self.listed else _LINE)

    @property
    def pitch(self) -> tuple[int, int]:
        """From one panel to the next, across and down."""
        lines = self.listed + self.captions
        return self.side + _GAP, self.side + _GAP + lines * _LINE

    @property
    def width(self) -> int:
        panels = self.left + self.columns * self.pitch[0] + _MARGIN
        return max(_MIN_WIDTH, panels + _BAR + _BAR_LABELS)

    @property
    def height(self) -> int:
        return self.top + self.rows * self.pitch[1] + _MARGIN

    def panel(self, index: int) -> Box:
        """Panels are counted row by row."""
        row, column = divmod(index, self.columns)
        left = self.left + column * self.pitch[0]
        top = self.top + row * self.pitch[1] + self.listed * _LINE
        return left, top, left + self.side, top + self.side

    def bar(self, row: int | None) -> Box:
        """Of one row, or of all."""
        left = self.left + self.columns * self.pitch[0] + _MARGIN
        top = self.panel((row or 0) * self.columns)[1]
        bottom = self.panel((self.rows - 1 if row is None else row) * self.columns)[3]
        return left, top, left + _BAR, min(bottom, top + _MAX_BAR)
