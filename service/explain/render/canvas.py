"""A picture to draw on: text, cells of colour, colour bars; its PNG is reproducible to the byte.

All places are in pixels from the upper left corner.
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from models.arrays import Pixels
from service.explain.render import Box
from service.explain.render.colours import colours

Align = Literal["left", "centre", "right"]

INK = "#1a1a1a"
MUTED = "#5f5f5f"
_FINER = 4  # text is drawn in so many times its size, and averaged: even gaps between letters
_CAPITALS = 0.7  # the height of capitals and digits, of the size of the font
_STROKE = 0.04  # around bold letters, of the size of the font
_COMPRESSION = 1  # the level of zlib: a higher one saves a tenth, in up to four times the time


class Canvas:
    """An RGB picture, white at first."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int,
        *,
        align: Align = "left",
        ink: str = INK,
        bold: bool = False,
        upwards: bool = False,
    ) -> int:
        """Text along the line of height y (of width x if upwards); returns its length.

        The middle of its capitals is on the line; `align` says which end of it is at the place.
        """
        if not text:
            return 0
        mask = _text(text, size, bold)
        before = {"left": 0.0, "centre": mask.width / 2, "right": float(mask.width)}[align]
        if upwards:
            rotated = mask.transpose(Image.Transpose.ROTATE_90)
            corner = x - rotated.width / 2, y + before - rotated.height
        else:
            rotated = mask
            corner = x - before, y - mask.height / 2
        self.image.paste(ink, (round(corner[0]), round(corner[1])), rotated)
        return mask.width

    def heading(self, x: int, y: int, text: str, size: int, *, bold: bool = False) -> None:
        """Text as `text` draws it, smaller where it would not leave as much room to the right."""
        room, length = self.image.width - 2 * x, text_length(text, size, bold=bold)
        if length > room:
            size = size * room // length
        self.text(x, y, text, size, bold=bold)

    def rectangle(self, box: Box, colour: str | tuple[int, int, int]) -> None:
        """A line of one pixel around a box, outside of it."""
        left, top, right, bottom = box
        self._draw.rectangle((left - 1, top - 1, right, bottom), outline=colour)

    def line(self, start: tuple[int, int], end: tuple[int, int], colour: str) -> None:
        self._draw.line((*start, *end), fill=colour)

    def colour_bar(
        self, box: Box, limit: float, label: str, size: int, *, signed: bool, values: int
    ) -> None:
        """The scale from 0, or from -limit if signed, with about so many values beside it."""
        left, top, right, bottom = box
        low = -limit if signed else 0
        shares = np.linspace(1, -1 if signed else 0, bottom - top, dtype=np.float32)
        bar = cells(colours(shares[:, None], signed=signed), right - left, bottom - top)
        self.image.paste(bar, (left, top))
        self.rectangle(box, MUTED)
        length = 0
        for value, words in ticks(low, limit, values):
            height = round((bottom - top - 1) * (value - low) / (limit - low))
            y = bottom - 1 - height
            self.line((right + 1, y), (right + 3, y), MUTED)
            length = max(length, self.text(right + 6, y, words, size))
        x, middle = right + 6 + length + size, (top + bottom) / 2
        self.text(x, middle, label, size, align="centre", upwards=True)

    def png(self, header: Sequence[str], dpi: int) -> bytes:
        """Its metadata has the header, but no time or version."""
        title, *lines = header
        info = PngInfo()
        info.add_text("Title", title)
        info.add_text("Description", "\n".join(lines))
        png = io.BytesIO()
        self.image.save(png, "PNG", pnginfo=info, dpi=(dpi, dpi), compress_level=_COMPRESSION)
        return png.getvalue()


def cells(colours: Pixels, width: int, height: int) -> Image.Image:
    """Colours [h, w, 3] as rectangles, without smoothing."""
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def add_dots(picture: Image.Image, dotted: npt.NDArray[np.bool_]) -> None:
    """White dots in the middle of some of the picture's cells [h, w]."""
    h, w = dotted.shape
    height, width = picture.height // h, picture.width // w
    half = min(3, min(height, width) // 8)
    y, x, side = height // 2 - half, width // 2 - half, 2 * half + 1
    mask = np.zeros((h, height, w, width), np.uint8)
    mask[:, y : y + side, :, x : x + side] = 255 * dotted[:, None, :, None].astype(np.uint8)
    picture.paste("white", mask=Image.fromarray(mask.reshape(picture.height, picture.width)))


def text_length(text: str, size: int, *, bold: bool = False) -> int:
    return _text(text, size, bold).width if text else 0


def ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round numbers from low to high, with at most so many intervals, and their words."""
    least = (high - low) / most
    power = math.floor(math.log10(least))
    times = next(times for times in (1, 2, 2.5, 5, 10) if times * 10.0**power > 0.999 * least)
    step = times * 10.0**power
    decimals = max(0, (times == 2.5) - (times == 10) - power)
    form = f".{decimals}f" if decimals < 6 else ".1e"
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [(number * step, f"{number * step:{form}}") for number in range(first, last + 1)]


@lru_cache(maxsize=2048)  # labels and numbers come back in the next picture
def _text(text: str, size: int, bold: bool) -> Image.Image:
    """How much ink each pixel has; the middle of its capitals is in the middle of the height."""
    font = _font(size * _FINER)
    stroke = _STROKE * size if bold else 0
    width = math.ceil((font.getlength(text) + 2 * stroke) / _FINER)
    fine = Image.new("L", (width * _FINER, 2 * size * _FINER))
    baseline = round((1 + _CAPITALS / 2) * size * _FINER)
    ImageDraw.Draw(fine).text(
        (stroke, baseline), text, fill=255, font=font, anchor="ls", stroke_width=stroke
    )
    return fine.reduce(_FINER)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
