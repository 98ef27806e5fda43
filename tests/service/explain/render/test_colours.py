"""Colours are those of the published scales, and can be read on."""

import numpy as np
import pytest

from service.explain.render.colours import colours, readable_on
from tests.support.panels import colours as published


@pytest.mark.parametrize("signed", [True, False])
def test_all_colours_are_those_of_the_published_scales(signed: bool) -> None:
    values = np.linspace(-1 if signed else 0, 1, 4096, dtype=np.float32)
    found = colours(values, signed=signed)
    assert np.abs(found - published(values.astype(np.float64), signed=signed)).max() <= 0.5
    assert len(np.unique(found, axis=0)) > 250


@pytest.mark.parametrize("signed", [True, False])
def test_values_beyond_the_scale_have_the_colours_of_its_ends(signed: bool) -> None:
    low = -1 if signed else 0
    found = colours(np.array([low - 3, low, 1, 9], np.float32), signed=signed)
    assert (found[0] == found[1]).all()
    assert (found[2] == found[3]).all()
    assert (found[1] != found[2]).any()


def test_what_is_no_number_is_white() -> None:
    found = colours(np.array([[np.nan, 0], [1, np.nan]], np.float32), signed=True)
    assert (found == 255).all(axis=-1).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("signed", [True, False])
def test_numbers_have_contrast_on_every_colour(signed: bool) -> None:
    """At least 4 to 1, as luminance is defined for text on the web (WCAG)."""
    for colour in colours(
        np.linspace(-1 if signed else 0, 1, 256, dtype=np.float32), signed=signed
    ):
        share = colour / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        behind = float(linear @ (0.2126, 0.7152, 0.0722))
        ink = 1.0 if readable_on(colour) == "white" else 0.0
        light, dark = max(behind, ink) + 0.05, min(behind, ink) + 0.05
        assert light / dark > 4
