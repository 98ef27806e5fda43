"""Curves go through their values, with gaps where there are none."""

import numpy as np
import pytest

from service.explain.render.canvas import Canvas
from service.explain.render.curves import Axes, Mark
from tests.support.panels import Canvas as Numbers

BLOCKS, BOX = 5, (60, 40, 560, 240)
RED, BLUE = "#ff0000", "#0000ff"


def finished(axes: Axes, canvas: Canvas) -> Numbers:
    axes.finish("A title", "unit", [str(block) for block in range(BLOCKS)])
    return np.asarray(canvas.image).astype(np.int64)


def place(block: float, value: float) -> tuple[int, int]:
    """Row and column of a value, on axes from 0 to 1."""
    return round(240 - 200 * value), round(60 + 100 * (block + 0.5))


@pytest.mark.parametrize("dotted", [True, False])
def test_a_curve_goes_through_its_values_and_has_gaps(dotted: bool) -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    values = np.array([0.1, 0.9, 0.5, np.nan, 0.3], np.float32)
    axes.curve(range(BLOCKS), values, RED, mark="dot", dotted=dotted)
    red = (finished(axes, canvas) == (255, 0, 0)).all(axis=-1)
    for block, value in enumerate(values):
        if not np.isnan(value):
            assert red[place(block, value)]
    _, first = place(0, 0)
    assert red[:, first : place(2, 0)[1]].any(axis=0).mean() > (0.4 if dotted else 0.99)
    assert not red[:, place(2.1, 0)[1] : place(3.9, 0)[1]].any()


@pytest.mark.parametrize("mark", ["dot", "ring", "square", "dash"])
def test_marks_are_at_their_values(mark: Mark) -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    axes.marks([1, 3], np.array([0.33, 0.77], np.float32), BLUE, mark)
    blue = finished(axes, canvas)[..., 0] < 100  # of white and blue
    blue[:, :60] = blue[240:] = False
    rows, columns = np.nonzero(blue)
    for block, value in ((1, 0.33), (3, 0.77)):
        row, column = place(block, value)
        near = np.abs(columns - column) < 10
        assert abs(rows[near].mean() - row) < 1
        assert abs(columns[near].mean() - column) < 1
        assert blue[row, column] == (mark != "ring")


def test_a_band_lies_between_its_limits() -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    low, high = (np.full(BLOCKS, value, np.float32) for value in (0.25, 0.75))
    axes.band(low, high, BLUE, "all")
    blue = (finished(axes, canvas) == (0, 0, 255)).all(axis=-1)
    rows = np.flatnonzero(blue[:240, place(2, 0)[1]])
    assert abs(rows[0] - place(0, 0.75)[0]) <= 1
    assert abs(rows[-1] - place(0, 0.25)[0]) <= 1


def test_a_level_is_dashed_over_the_whole_width() -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    axes.level(0.9, words="0.9")
    row = finished(axes, canvas)[place(0, 0.9)[0], 60:560].max(axis=-1) < 100
    assert 0.5 < row.mean() < 0.8
    assert row[:8].all()
    assert row[-20:].any()


def test_labels_of_the_legend_lie_beside_each_other() -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    values = np.full(BLOCKS, 0.5, np.float32)
    axes.curve(range(BLOCKS), values, RED, mark="dot", label="first")
    axes.marks(range(BLOCKS), values, BLUE, "square", label="second")
    legend = finished(axes, canvas)[285:310]
    red = np.flatnonzero((legend == (255, 0, 0)).all(axis=-1).any(axis=0))
    blue = np.flatnonzero((legend == (0, 0, 255)).all(axis=-1).any(axis=0))
    words = np.flatnonzero((legend.max(axis=-1) < 100).any(axis=0))
    assert red.max() < words.min() < blue.min() < words.max()


def test_curves_without_any_value_are_drawn() -> None:
    canvas = Canvas(600, 340)
    axes = Axes(canvas, BOX, BLOCKS, 0, 1)
    nothing = np.full(BLOCKS, np.nan, np.float32)
    axes.band(nothing, nothing, BLUE, "band")
    axes.curve([], np.zeros(0, np.float32), RED, mark="dot")
    axes.curve(range(BLOCKS), nothing, RED, mark="square", dotted=True)
    found = finished(axes, canvas)[:240]
    assert not (found == (255, 0, 0)).all(axis=-1).any()
    assert not (found == (0, 0, 255)).all(axis=-1).any()
