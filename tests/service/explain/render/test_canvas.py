"""Text is where it should be and complete, cells and colour bars have their colours."""

import io
import string
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFont

from service.explain.render.canvas import Align, Canvas, add_dots, cells, ticks
from tests.support.panels import Canvas as Numbers
from tests.support.panels import colours

BLACK = "#000000"


def ink(canvas: Canvas) -> npt.NDArray[np.bool_]:
    """Where something is drawn. [height, width]"""
    dark: npt.NDArray[np.bool_] = np.asarray(canvas.image).max(axis=-1) < 128
    return dark


@pytest.mark.parametrize(
    "character", sorted({*string.ascii_letters, *string.digits, *"._-*,;:()±…%'"})
)
def test_the_font_has_all_characters_of_titles_and_numbers(character: str) -> None:
    font = ImageFont.load_default(40)
    missing, found = (bytes(font.getmask(text)) for text in ("\N{SNOWMAN}", character))
    assert found != missing


@pytest.mark.parametrize("bold", [True, False])
@pytest.mark.parametrize("align", ["left", "centre", "right"])
def test_capitals_are_in_the_middle_of_their_line(align: Align, bold: bool) -> None:
    across, upwards = Canvas(300, 300), Canvas(300, 300)
    length = across.text(150, 140, "HEAD", 20, align=align, ink=BLACK, bold=bold)
    upwards.text(140, 150, "HEAD", 20, align=align, ink=BLACK, bold=bold, upwards=True)
    rows, columns = (np.flatnonzero(ink(across).any(axis=axis)) for axis in (1, 0))
    assert abs((rows[0] + rows[-1] + 1) / 2 - 140) <= 1
    left = {"left": 150, "centre": 150 - length / 2, "right": 150 - length}[align]
    assert left <= columns[0] <= left + 3
    assert left + length - 3 <= columns[-1] <= left + length
    before = 150 - left  # the same text, turned around its place
    turned = np.rot90(ink(across)[130:150, columns[0] : columns[-1] + 1])
    top = round(150 + before - length) + (round(left) + length - 1 - columns[-1])
    assert (ink(upwards)[top : top + len(turned), 130:150] == turned).all()


def test_nothing_is_drawn_for_no_text() -> None:
    canvas = Canvas(20, 20)
    assert canvas.text(5, 5, "", 12) == 0
    assert not ink(canvas).any()


def test_cells_are_rectangles_with_dots_in_their_middle() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    picture = cells(values, 2 * 24, 2 * 16)
    add_dots(picture, np.array([[False, True], [False, False]]))
    found = np.asarray(picture)
    expected = values.repeat(16, axis=0).repeat(24, axis=1)
    expected[8 - 2 : 8 + 3, 36 - 2 : 36 + 3] = 255
    assert (found == expected).all()


@pytest.mark.parametrize("signed", [True, False])
def test_a_colour_bar_has_its_numbers_where_their_colours_are(signed: bool) -> None:
    canvas = Canvas(200, 500)
    canvas.colour_bar((20, 40, 34, 460), 0.5, "attention", 12, signed=signed, values=4)
    found: Numbers = np.asarray(canvas.image).astype(np.int64)
    low = -0.5 if signed else 0
    marks = np.flatnonzero((found[:, 36] != 255).any(axis=-1))
    values = [value for value, _ in ticks(low, 0.5, 4)][::-1]
    assert len(marks) == len(values) > 2
    expected = colours(np.array(values) / 0.5, signed=signed)
    assert np.abs(found[marks, 27] - expected).max() <= 4
    assert ink(canvas)[:, 60:].any()  # its label


@pytest.mark.parametrize("most", [2, 4, 6, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("limit", [1e-30, 3e-7, 0.000123, 0.0625, 0.5, 1, 1.3, 4.17, 37, 96, 2500])
def test_ticks_are_round_numbers_on_the_scale(limit: float, signed: bool, most: int) -> None:
    low = -limit if signed else 0.0
    found = ticks(low, limit, most)
    values = np.array([value for value, _ in found])
    words = [words for _, words in found]
    assert 1 <= len(found) <= most + 1
    assert len(set(words)) == len(words)
    assert (values >= 1.001 * low).all()
    assert (values <= 1.001 * limit).all()
    assert 0 in values
    assert np.allclose([float(word) for word in words], values, rtol=1e-9, atol=1e-9 * limit)
    assert max(map(len, words)) <= 8


def test_pictures_that_are_drawn_at_once_do_not_mix() -> None:
    def draw(number: int) -> bytes:
        canvas = Canvas(200, 100)
        for line in range(5):
            canvas.text(10, 10 + 16 * line, f"picture {number}, line {line}", 12)
        return canvas.png(["title", f"picture {number}"], 100)

    alone = [draw(number) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(24))) == alone
    with Image.open(io.BytesIO(alone[3])) as picture:
        assert picture.info["Description"] == "picture 3"
