"""Pictures of maps of any shape: nothing is cut off, dots and outlines are where they belong."""

import numpy as np
import pytest

from models.size import Size
from service.explain.render import Scale
from service.explain.render.maps import MapsPicture, render_maps
from tests.support.panels import canvas_of, colours, corners, framed

WHITE = (255, 255, 255)


def picture(
    shape: tuple[int, ...],
    *,
    signed: bool = True,
    scale: Scale = "all",
    overlay: bool = False,
    largest: float = 1,
    cell: Size | None = None,
    query_patch: tuple[int, int] | None = None,
) -> MapsPicture:
    """The longest words that a picture may have, around random maps."""
    random = np.random.default_rng(0)
    maps = random.uniform(-1 if signed else 0, 1, shape).astype(np.float32)
    rows, columns, height, width = shape
    return MapsPicture(
        maps=maps * np.float32(largest),
        title=f"{39 * 'm'}…, version 1000, re-attention stage",
        subtitles=[
            "What each token (row) attends to (column); 4 registers first; one scale for all",
            f"image {'0123456789abcdef' * 2}",
        ],
        notes=["* a block that mixes heads, with a LayerNorm over them"],
        rows=[f"block {row}*" for row in range(rows)],
        columns=[f"head {column}" for column in range(columns)] if columns > 1 else ["max_abs"],
        quantity="attention" if columns > 1 else "attention, max_abs of heads",
        signed=signed,
        scale=scale,
        cell=cell,
        background=np.full((8 * height, 8 * width, 3), 128, np.uint8) if overlay else None,
        query_patch=query_patch,
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scale", ["map", "block", "all"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 8, 8), (2, 1, 4, 9), (3, 6, 8, 8), (32, 1, 14, 14), (24, 12, 7, 7)]
)
@pytest.mark.parametrize("overlay", [True, False])
def test_nothing_is_cut_off(
    shape: tuple[int, ...], scale: Scale, signed: bool, overlay: bool
) -> None:
    canvas_of(render_maps(picture(shape, signed=signed, scale=scale, overlay=overlay)))


@pytest.mark.parametrize("largest", [0, 1e-12, 0.00034, 250])
@pytest.mark.parametrize("scale", ["map", "all"])
def test_maps_of_any_magnitude_have_all_their_colours(scale: Scale, largest: float) -> None:
    drawn = picture((2, 3, 5, 5), scale=scale, largest=largest)
    found = corners(framed(canvas_of(render_maps(drawn))), 5)
    axes = (2, 3) if scale == "map" else None
    limits = np.abs(drawn.maps).max(axis=axes, keepdims=True)
    expected = colours(drawn.maps / np.where(limits > 0, limits, 1), signed=True)
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize("overlay", [True, False])
def test_dots_are_in_the_cells_that_are_clearly_negative(overlay: bool) -> None:
    drawn = picture((2, 3, 8, 8), overlay=overlay)
    panels = framed(canvas_of(render_maps(drawn)))
    side = panels.shape[2] // 8
    middles = panels[:, :, side // 2 :: side, side // 2 :: side]
    limit = np.abs(drawn.maps).max()
    assert ((middles == WHITE).all(axis=-1) == (drawn.maps < -0.25 * limit)).all()


def test_the_outline_is_around_the_query_patch_in_every_map() -> None:
    drawn = picture((4, 2, 6, 6), cell=Size(8, 16), query_patch=(2, 5))
    panels = framed(canvas_of(render_maps(drawn)))
    height, width = panels.shape[2] // 6, panels.shape[3] // 6
    patch = panels[:, :, 2 * height : 3 * height, 5 * width : 6 * width]
    assert width == 2 * height
    for grey, inset in ((0, 0), (255, 1)):
        ring = patch[:, :, inset : height - inset, inset : width - inset]
        for side in (ring[:, :, 0], ring[:, :, -1], ring[:, :, :, 0], ring[:, :, :, -1]):
            assert (side == grey).all()


def test_a_number_is_in_every_cell_that_has_room() -> None:
    drawn = picture((1, 1, 16, 16))
    [[panel]] = framed(canvas_of(render_maps(drawn)))
    side = len(panel) // 16
    cells = panel.reshape(16, side, 16, side, 3).swapaxes(1, 2)
    middles = cells[:, :, side // 3 : -side // 3].reshape(256, -1, 3)
    assert (np.ptp(middles, axis=1).max(axis=-1) > 60).all()
    edges = cells[:, :, :, [0, -1]].reshape(256, -1, 3)
    assert (np.ptp(edges, axis=1) == 0).all(), "a number reaches into the next cell"
