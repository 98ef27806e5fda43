"""An image of any format comes out as upright RGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.imaging import FORMATS, heif
from tests.service.imaging.encoded import (
    BLUE,
    GREEN,
    ORIENTATION,
    RED,
    SAVED,
    TURNED,
    YELLOW,
    Colour,
    assert_quarters,
    colours,
    decode,
    exif,
    png,
    quarters,
    save,
    with_palette,
)


def test_every_format_has_a_row() -> None:
    assert SAVED.keys() == {*FORMATS, "HEIF"}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_in_its_colours(format: str) -> None:
    tolerance, options = SAVED[format]
    assert_quarters(decode(save(quarters(), format, **options)), tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", *heif.FORMATS])
def test_every_exif_orientation_comes_out_upright(format: str, orientation: int) -> None:
    upright = np.asarray(quarters())
    stored = {  # where EXIF says that row 0 and column 0 of the stored picture belong
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: np.rot90(upright),  # right, top
        7: upright.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: np.rot90(upright, -1),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    tolerance, options = SAVED[format]
    options = options | {"exif": exif.tobytes()}
    data = save(Image.fromarray(np.ascontiguousarray(stored)), format, **options)
    assert_quarters(decode(data), tolerance)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png([[[255, 0, 0, 255], [255, 0, 0, 0]]]), [RED, (255, 255, 255)]),
        (png([[[255, 0, 0, 51], [0, 0, 0, 204]]]), [(255, 204, 204), (51, 51, 51)]),
        (
            save(Image.merge("LA", (Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 51))), "PNG"),
            [(204, 204, 204)],
        ),
        (with_palette(transparency=0), [(255, 255, 255), BLUE]),
        (with_palette(transparency=bytes([255, 51])), [RED, (204, 204, 255)]),
        (
            save(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
            [(255, 255, 255)],
        ),
        (save(Image.new("RGB", (1, 1), (1, 2, 4)), "PNG", transparency=(1, 2, 3)), [(1, 2, 4)]),
        (save(Image.new("L", (1, 1), 7), "PNG", transparency=7), [(255, 255, 255)]),
        (save(Image.new("1", (1, 1), 0), "PNG", transparency=0), [(255, 255, 255)]),
        (save(Image.new("I;16", (1, 1), 7), "PNG", transparency=7), [(255, 255, 255)]),
    ],
    ids=[
        "RGBA clear",
        "RGBA half clear",
        "LA",
        "palette, clear entry",
        "palette, half clear entry",
        "RGB, clear colour",
        "RGB, clear colour not used",
        "L, clear grey",
        "1 bit, clear black",
        "16 bits, clear grey",
    ],
)
def test_transparency_stands_over_white(data: bytes, expected: list[Colour]) -> None:
    assert np.asarray(decode(data))[0].tolist() == list(map(list, expected))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_keep_their_upper_eight(format: str) -> None:
    deep = Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16))
    options = {"irreversible": False} if format == "JPEG2000" else {}
    grey = np.asarray(decode(save(deep, format, **options)))[0]
    assert grey.tolist() == [[level] * 3 for level in (0, 0, 1, 128, 255)]


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_tiff_of_sixteen_bits_in_which_white_may_be_zero(
    white_is_zero: bool, order: str, deflated: bool
) -> None:
    pixels = struct.pack(f"{order}5H", 0, 255, 256, 32768, 65535)
    image = decode(grey_tiff(pixels, 16, order, white_is_zero, deflated))
    expected = [255, 255, 254, 127, 0] if white_is_zero else [0, 0, 1, 128, 255]
    assert np.asarray(image)[0, :, 0].tolist() == expected


def test_a_tiff_of_twelve_bits_keeps_their_upper_eight() -> None:
    pixels = bytes.fromhex("00000f 010800 fff000")  # two values in each three bytes
    assert np.asarray(decode(grey_tiff(pixels, 12)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def grey_tiff(
    pixels: bytes,
    bits: int,
    order: str = "<",
    white_is_zero: bool = False,
    deflated: bool = False,
) -> bytes:
    """One row of five pixels."""
    if deflated:
        pixels = zlib.compress(pixels)
    black = 0 if white_is_zero else 1
    tags = {256: 5, 257: 1, 258: bits, 259: 8 if deflated else 1, 262: black, 273: 8}
    tags |= {277: 1, 278: 1, 279: len(pixels)}
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, tags[tag]) for tag in tags)
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    return start + pixels + struct.pack(f"{order}H", len(tags)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        (Image.new("L", (8, 8), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (8, 8), 1), "PNG", (255, 255, 255)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", RED),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG", (0, 0, 0)),
        (Image.new("RGB", (8, 8), BLUE).convert("YCbCr"), "TIFF", BLUE),
        (Image.new("RGB", (8, 8), GREEN).quantize(4), "PNG", GREEN),
    ],
    ids=["grey", "one bit", "CMYK red", "CMYK black", "YCbCr", "palette"],
)
def test_other_colour_spaces_become_rgb(image: Image.Image, format: str, expected: Colour) -> None:
    np.testing.assert_allclose(colours(decode(save(image, format)))[0][0], expected, atol=2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_of_several_pictures_the_first_is_read(format: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE))
    data = save(first, format, save_all=True, append_images=[second])
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_allclose(colours(decode(data))[0][0], RED, atol=3)


@pytest.mark.parametrize("size", [(1, 1), (1, 65_000), (65_000, 1)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_smallest_and_the_thinnest_are_read(format: str, size: tuple[int, int]) -> None:
    image = decode(save(Image.new("RGB", size, BLUE), format))
    assert image.size == size
    np.testing.assert_allclose(np.asarray(image)[-1, -1], BLUE, atol=2)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns, then goes on
@pytest.mark.parametrize(
    "metadata",
    [
        b"Exif\0\0garbage",
        exif(TURNED)[:16],
        exif((int(ORIENTATION), 3, 1, b"\x63\0")),
        exif((int(ORIENTATION), 2, 2, b"6\0")),
        exif((int(ORIENTATION), 3, 2**30, b"\xff\xff\xff\xff")),
    ],
    ids=["no directory", "cut", "no such orientation", "orientation as text", "points outside"],
)
def test_broken_exif_does_not_spoil_a_picture(metadata: bytes) -> None:
    assert_quarters(decode(save(quarters(), "PNG", exif=metadata)), tolerance=0)


@pytest.mark.parametrize(
    "neighbour",
    [
        (int(ExifTags.Base.ImageDescription), 5, 1, struct.pack("<II", 1, 2)),
        (int(ExifTags.Base.XResolution), 2, 4, b"abc\0"),
        (int(ExifTags.Base.ImageWidth), 9, 1, struct.pack("<i", -1)),
    ],
    ids=["description as number", "resolution as text", "negative width"],
)
def test_a_picture_is_turned_upright_beside_other_broken_tags(
    neighbour: tuple[int, int, int, bytes],
) -> None:
    image = decode(save(quarters(), "PNG", exif=exif(*sorted([TURNED, neighbour]))))
    assert image.size == (32, 48)
    assert colours(image) == [[BLUE, RED], [YELLOW, GREEN]]
