"""Panels of any proportions lie beside each other inside their picture."""

import itertools

import pytest

from models.size import Size
from service.errors import AnswerTooLarge
from service.explain.render import Scale
from service.explain.render.layout import Layout


@pytest.mark.parametrize("unit", [Size(8, 8), Size(9, 16), Size(64, 4), Size(384, 384)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (16, 1), (1, 12), (6, 3)])
@pytest.mark.parametrize("scale", ["all", "map"])
def test_panels_are_whole_units_apart_from_each_other(
    unit: Size, rows: int, columns: int, scale: Scale
) -> None:
    layout = Layout.of((rows, columns, 4, 4), scale, background=unit)
    height, width = layout.panel_size
    assert height % unit.height == width % unit.width == 0
    assert height // unit.height == width // unit.width
    assert height * width >= 80 * 80
    boxes = [layout.panel(index) for index in range(rows * columns)]
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (width, height)
        assert left > 0 < top
        assert right < layout.bar(None)[0] < layout.width
        assert bottom < layout.height
    for one, other in itertools.combinations(boxes, 2):
        assert other[0] >= one[2] + 6 or other[1] >= one[3] + 6 or other[2] + 6 <= one[0]


def test_a_list_of_wide_maps_has_fewer_columns_than_one_of_tall_maps() -> None:
    wide, square, tall = (
        Layout.of((16, 1, *grid)) for grid in (Size(4, 16), Size(8, 8), Size(16, 4))
    )
    assert [(one.rows, one.columns) for one in (wide, square, tall)] == [(8, 2), (4, 4), (2, 8)]


def test_maps_that_do_not_fit_one_picture_are_refused() -> None:
    with pytest.raises(AnswerTooLarge, match="2304 maps do not fit one picture"):
        Layout.of((48, 48, 300, 300))


def test_values_are_drawn_in_the_proportions_of_a_patch() -> None:
    """Patches of 8 x 32 pixels make a square of a grid of 8 x 2."""
    height, width = Layout.of((1, 1, 8, 2), cell=Size(8, 32)).panel_size
    assert height == width
    assert height % 8 == width % 2 == 0
