"""Preprocessing equals the published evaluation transform and is cheap for every shape."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from models.arrays import Pixels
from models.preprocess import Preprocessing, preprocess
from models.size import Size
from tests.support.memory import limited_memory

SIDES = st.integers(1, 300)


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng((width, height))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def resized_then_cropped(image: Image.Image, rule: Preprocessing) -> Pixels:
    """The two steps as training code takes them."""
    short = min(image.size)
    width, height = (int(rule.resize.side * side / short) for side in image.size)
    resized = image.resize((width, height), Image.Resampling[rule.interpolation.upper()])
    left, top = round((width - rule.size.side) / 2), round((height - rule.size.side) / 2)
    cropped = resized.crop((left, top, left + rule.size.side, top + rule.size.side))
    return np.asarray(cropped)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.sampled_from([1, 7, 32, 64]), st.sampled_from([0.5, 0.875, 0.9, 1.0]))
@example(53, 79, 64, 0.9)  # upright and enlarged
@example(200, 300, 64, 0.9)  # upright and reduced
@example(94, 10, 32, 0.9)  # enlarged by a ratio of many ties
def test_equals_resizing_the_shorter_side_then_cropping_the_centre(
    interpolation: str, width: int, height: int, size: int, crop_pct: float
) -> None:
    assume(max(width, height) <= 16 * min(width, height))
    rule = Preprocessing.model_validate(
        {"size": size, "crop_pct": crop_pct, "interpolation": interpolation}
    )
    image = noise(width, height)
    found = preprocess(image, rule)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, resized_then_cropped(image, rule))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
def test_a_picture_of_the_right_size_is_left_as_it_is(interpolation: str) -> None:
    rule = Preprocessing.model_validate(
        {"size": 32, "crop_pct": 1.0, "interpolation": interpolation}
    )
    np.testing.assert_array_equal(preprocess(noise(32, 32), rule), np.asarray(noise(32, 32)))


@pytest.mark.parametrize(
    ("size", "crop_pct", "resize"), [(224, 0.9, 248), (224, 0.875, 256), (384, 1.0, 384)]
)
def test_the_shorter_side_before_the_crop_is_the_published_one(
    size: int, crop_pct: float, resize: int
) -> None:
    assert Preprocessing(size=Size.of(size), crop_pct=crop_pct).resize == Size.of(resize)


@pytest.mark.parametrize("wide", [True, False])
def test_a_thin_picture_takes_little_memory(wide: bool) -> None:
    """Resized whole, it would have 248 x 24,800,000 pixels."""
    line = np.full((100_000, 3), (255, 0, 0), dtype=np.uint8)
    line[49_990:50_010] = (0, 0, 255)
    image = Image.fromarray(line[None] if wide else line[:, None])
    with limited_memory(128):
        found = preprocess(image, Preprocessing(size=Size.of(224)))
    np.testing.assert_array_equal(found, np.broadcast_to((0, 0, 255), (224, 224, 3)))


def test_both_sides_are_resized_without_regard_to_proportions() -> None:
    picture = noise(60, 20)
    rule = Preprocessing(size=Size.of(28), crop_pct=28 / 36, resize_mode="both_sides")
    whole = np.asarray(picture.resize((36, 36), Image.Resampling.BICUBIC))
    assert np.array_equal(preprocess(picture, rule), whole[4:32, 4:32])


@pytest.mark.parametrize("resize", range(224, 512))
def test_a_crop_out_of_whole_pixels_survives_as_a_share(resize: int) -> None:
    assert Preprocessing(size=Size.of(224), crop_pct=224 / resize).resize == Size.of(resize)
