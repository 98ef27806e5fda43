"""JPEGs that are decoded smaller than they are, or at once, look the same."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.size import Size
from service.errors import CorruptImage
from service.imaging.decoder import Decoder
from tests.service.imaging.encoded import (
    MAX_PIXELS,
    decode,
    save,
)
from tests.support.server import ROOT


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((800, 600), 75, (200, 150)),
        ((800, 600), 76, (400, 300)),
        ((800, 600), 151, (800, 600)),  # a half would be less than twice as large as needed
        ((4000, 3000), 32, (500, 375)),  # an eighth is the least there is
        ((800, 600), 0, (800, 600)),
    ],
)
def test_a_jpeg_may_be_decoded_smaller_but_twice_as_large_as_needed(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    jpeg = save(Image.linear_gradient("L").resize(size).convert("RGB"), "JPEG")
    decoder = Decoder(size[0] * size[1], reduced=True)
    covers = Size.of(side) if side else None
    assert decoder.decode(jpeg, covers).size == expected
    assert Decoder(size[0] * size[1]).decode(jpeg, covers).size == size


def test_what_is_decoded_smaller_looks_the_same() -> None:
    jpeg = (ROOT / "tests" / "data" / "cat.jpg").read_bytes()
    whole, reduced = (Decoder(10**6, faster).decode(jpeg, Size.of(48)) for faster in (False, True))
    assert reduced.width < whole.width
    small, same = (np.asarray(image.resize((48, 48)), np.int16) for image in (whole, reduced))
    assert 0 < np.abs(small - same).mean() < 2


@pytest.mark.parametrize(
    "image",
    [
        Image.linear_gradient("L").resize((32, 32)).convert("RGB"),
        Image.linear_gradient("L").resize((64, 64)),
        Image.new("CMYK", (1, 4096), "red"),
    ],
    ids=["colours", "grey", "long"],
)
def test_a_small_jpeg_is_the_same_decoded_at_once(image: Image.Image) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    jpeg = save(image, "JPEG", exif=turned)
    small = Decoder(MAX_PIXELS).decode_small(jpeg, Size.of(32))
    assert small is not None
    np.testing.assert_array_equal(np.asarray(small), np.asarray(decode(jpeg)))


@pytest.mark.parametrize(
    ("data", "side"),
    [
        (save(Image.new("RGB", (65, 64)), "JPEG"), 32),
        (save(Image.new("RGB", (8, 8)), "JPEG") + bytes(2**14), 32),
        (save(Image.new("RGB", (8, 8)), "JPEG"), 224),
        (save(Image.new("RGB", (8, 8)), "PNG"), 32),
        (b"", 32),
    ],
    ids=["large", "long", "to be enlarged", "another format", "nothing"],
)
def test_everything_else_is_left_to_a_thread(data: bytes, side: int) -> None:
    assert Decoder(MAX_PIXELS).decode_small(data, Size.of(side)) is None


def test_a_small_jpeg_that_is_cut_is_corrupt() -> None:
    jpeg = save(Image.effect_noise((32, 32), 90), "JPEG")
    with pytest.raises(CorruptImage):
        Decoder(MAX_PIXELS).decode_small(jpeg[: len(jpeg) // 2], Size.of(32))
