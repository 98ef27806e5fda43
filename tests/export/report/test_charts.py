"""Charts that say what their numbers say."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from export.report.charts import Line, Scale, bar, lines, matrix, picture

SCALE = Scale(-1, 1, "RdBu_r")


def test_a_point_tells_its_value_and_interval() -> None:
    y = np.array([np.nan, 0.25, 0.5])
    curve = Line("<model>", "c0", range(3), y, y - 0.125, y + 0.125)
    chart = lines([curve], "some measure", (0, 1), rule=0.9)
    titles = re.findall("<title>(.*?)</title>", chart)
    assert titles == [
        "&lt;model&gt;, block 1: 0.25 (0.125 to 0.375)",
        "&lt;model&gt;, block 2: 0.5 (0.375 to 0.625)",
    ]
    assert chart.count("<polygon") == chart.count('class="rule"') == 1


def test_higher_values_stand_higher() -> None:
    chart = lines([Line("model", "c0", range(3), np.array([1.0, 3.0, 2.0]))], "measure")
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)]
    assert heights[1] < heights[2] < heights[0]
    assert "polygon" not in chart  # no interval is known


@pytest.mark.parametrize("values", [[0.5], [np.nan], [0.0, 0.0]])
def test_few_or_equal_or_no_values_are_no_accident(values: list[float]) -> None:
    chart = lines([Line("model", "c0", range(len(values)), np.array(values))], "measure")
    assert "nan" not in chart
    assert chart.count("<circle") == int(np.isfinite(values).sum())


def test_a_matrix_tells_every_pair() -> None:
    values = np.array([[1, -0.5], [0.25, 1]])
    chart = matrix(values, SCALE, "pairs")
    assert re.findall("<title>(.*?)</title>", chart) == [
        "blocks 0 and 0: 1.000",
        "blocks 0 and 1: -0.500",
        "blocks 1 and 0: 0.250",
        "blocks 1 and 1: 1.000",
    ]
    fills = re.findall('fill="(#[0-9a-f]{6})"', chart)
    assert fills[0] == fills[3]
    assert len(set(fills)) == 3


def test_a_picture_holds_the_colours_of_its_values() -> None:
    values = np.array([[-1, 0, 1], [-2, 0.5, 2]])
    encoded = re.search('base64,([^"]+)', picture(values, SCALE, "map"))
    assert encoded is not None
    with Image.open(io.BytesIO(base64.b64decode(encoded[1]))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (2, 3, 3)
    assert (pixels[0, [0, 2]] == pixels[1, [0, 2]]).all()  # beyond the ends: the ends' colours
    red, blue = pixels[..., 0], pixels[..., 2]
    assert blue[0, 0] > red[0, 0]
    assert red[0, 2] > blue[0, 2]
    assert abs(red[0, 1] - blue[0, 1]) < 5  # zero is neutral


def test_a_bar_names_its_ends_and_its_middle() -> None:
    assert re.findall("<span>(.*?)</span>", bar(Scale(0, 0.5, "viridis"))) == ["0", "0.25", "0.5"]
