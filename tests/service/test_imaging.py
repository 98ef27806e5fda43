"""Whatever bytes arrive, the decoder gives an upright RGB picture or says whose fault it is."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, ExifTags, Image

from models.imaging import FORMATS
from service.errors import CorruptImage, ImageTooLarge, NoImage, ServiceError, UnsupportedMedia
from service.imaging import Decoder
from tests.support.memory import limited_memory
from tests.support.server import ROOT

Colour = tuple[int, ...]

MAX_PIXELS = 1_000_000
RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
ORIENTATION = ExifTags.Base.Orientation

# How far a colour may move, and what `Image.save` needs to be told.
SAVED: dict[str, tuple[int, dict[str, Any]]] = {
    "JPEG": (3, {"quality": 95}),
    "PNG": (0, {}),
    "WEBP": (0, {"lossless": True}),
    "GIF": (0, {}),
    "BMP": (0, {}),
    "TIFF": (0, {}),
    "AVIF": (3, {"quality": 95}),
    "JPEG2000": (0, {}),
    "PPM": (0, {}),
    "ICO": (0, {"sizes": [(48, 32)]}),
}


@pytest.fixture(scope="module", autouse=True)
def pillows_own_limit() -> Iterator[None]:
    """A decoder sets it for the whole process."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


def decode(data: bytes) -> Image.Image:
    image = Decoder(MAX_PIXELS).decode(data)
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= MAX_PIXELS
    return image


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(pixels: npt.ArrayLike, dtype: npt.DTypeLike = np.uint8) -> bytes:
    return save(Image.fromarray(np.asarray(pixels, dtype=dtype)), "PNG")


def quarters() -> Image.Image:
    """Four colours, so that every way of turning it looks different."""
    pixels = np.array([[RED, GREEN], [BLUE, YELLOW]], dtype=np.uint8)
    return Image.fromarray(pixels.repeat(16, axis=0).repeat(24, axis=1))


def colours(image: Image.Image) -> list[list[Colour]]:
    """Of the middles of the quarters."""
    across, down = ([side // 4, side * 3 // 4] for side in image.size)
    pixels = np.asarray(image)
    return [[tuple(map(int, pixels[y, x])) for x in across] for y in down]


def assert_quarters(image: Image.Image, tolerance: int) -> None:
    assert image.size == (48, 32)
    np.testing.assert_allclose(
        np.array(colours(image)), [[RED, GREEN], [BLUE, YELLOW]], rtol=0, atol=tolerance
    )


# --- what is read


def test_every_format_has_a_row() -> None:
    assert SAVED.keys() == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_in_its_colours(format: str) -> None:
    tolerance, options = SAVED[format]
    assert_quarters(decode(save(quarters(), format, **options)), tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
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
    data = save(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options)
    assert_quarters(decode(data), tolerance)


def with_palette(transparency: int | bytes) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return save(image, "PNG", transparency=transparency)


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


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Tags as (tag, type, count, value), sound or not."""
    directory, values = b"", b""
    end = 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        inline = value.ljust(4, b"\0")
        if len(value) > 4:
            inline = struct.pack("<I", end + len(values))
            values += value
        directory += struct.pack("<HHI", tag, kind, count) + inline
    return (
        b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + values
    )


TURNED = (int(ORIENTATION), 3, 1, b"\x06\0")  # a quarter to the right


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


# --- what is not an image


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"<!DOCTYPE html><html><img src=x></html>",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        bytes(100),
        b"\xff",
    ],
    ids=["text", "HTML", "PDF", "SVG", "zeros", "one byte"],
)
def test_what_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decode(data)


def test_nothing_is_no_image() -> None:
    with pytest.raises(NoImage):
        decode(b"")


@pytest.mark.parametrize("format", ["PCX", "TGA", "SGI", "DDS"])
def test_formats_that_only_pillow_knows_are_unsupported(format: str) -> None:
    data = save(quarters(), format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == format
    with pytest.raises(UnsupportedMedia):
        decode(data)


def test_postscript_is_unsupported_and_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(quarters(), "EPS")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(UnsupportedMedia):
        decode(data)


@pytest.mark.parametrize("format", ["TIFF", "PPM"])
def test_floating_point_is_unsupported(format: str) -> None:
    with pytest.raises(UnsupportedMedia, match="floating-point"):
        decode(save(Image.new("F", (2, 2), 0.5), format))


# --- what is damaged


def noise(format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    if format == "ICO":
        options = {"sizes": [(64, 48)]}
    return save(Image.fromarray(pixels), format, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns, then raises
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_a_cut_image_is_corrupt(format: str, share: float) -> None:
    data = noise(format)
    with pytest.raises(CorruptImage):
        decode(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kept", [3, 8, 16, 24])
@pytest.mark.parametrize("format", FORMATS)
def test_an_image_cut_in_its_header_is_corrupt_or_unsupported(format: str, kept: int) -> None:
    with pytest.raises((CorruptImage, UnsupportedMedia)):
        decode(noise(format)[:kept])


def damaged_avif(find: bytes, offset: int, replacement: bytes) -> bytes:
    frames = [quarters(), quarters().rotate(180)]
    data = bytearray(save(frames[0], "AVIF", save_all=True, append_images=frames[1:]))
    start = data.index(find) + offset
    data[start : start + len(replacement)] = replacement
    return bytes(data)


@pytest.mark.parametrize(
    ("find", "offset", "replacement"),
    [(b"mdat", 4, bytes(100)), (b"mdhd", 4 + 4 + 16, bytes(4))],
    ids=["zeros for pixels", "no time scale"],
)
def test_a_damaged_avif_is_corrupt(find: bytes, offset: int, replacement: bytes) -> None:
    with pytest.raises((CorruptImage, UnsupportedMedia)):
        decode(damaged_avif(find, offset, replacement))


VALID = [
    *map(noise, FORMATS),
    noise("JPEG", progressive=True),
    noise("TIFF", compression="tiff_lzw"),
    noise("TIFF", compression="jpeg"),
    noise("WEBP", lossless=True, exif=exif(TURNED)),
    noise("PNG", exif=exif(TURNED), icc_profile=bytes(100)),
    noise("GIF", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    noise("PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    noise("MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], exif=exif(TURNED)),
    with_palette(bytes([0, 99])),
]


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    """A valid file with a few bits turned, pieces lost, or pieces of other files put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.sampled_from([64, 512, len(data)]))  # most of what can break comes first
        start = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["turn", "set", "lose", "cut", "splice"])):
            case "turn":
                data[start : start + 1] = bytes(
                    byte ^ 1 << draw(st.integers(0, 7)) for byte in data[start : start + 1]
                )
            case "set":
                data[start : start + 4] = draw(
                    st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff"])
                )
            case "lose":
                del data[start : start + length]
            case "cut":
                del data[start:]
            case "splice":
                other = draw(st.sampled_from(VALID))
                place = draw(st.integers(0, len(other) - 1))
                data[start : start + length] = other[place : place + length]
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged_images())
def test_damage_is_answered_with_a_picture_or_the_clients_fault(data: bytes) -> None:
    status = 200
    try:
        decode(data)
    except ServiceError as exc:
        status = exc.status
    assert status in (200, 400, 413, 415)


# --- what is too large


def patched(data: bytes, find: bytes, offset: int, replacement: bytes) -> bytes:
    start = data.index(find) + offset
    return data[:start] + replacement + data[start + len(replacement) :]


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def gif_claiming(canvas: int, frame: int) -> bytes:
    return (
        struct.pack("<6sHHBBB", b"GIF89a", canvas, canvas, 0x80, 0, 0)
        + bytes(6)
        + struct.pack("<cHHHHB", b",", 0, 0, frame, frame, 0)
        + b"\x02\x02\x44\x01\x00;"
    )


def ico_around(picture: bytes) -> bytes:
    """An icon whose directory says 16 x 16."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 6 + 16) + picture


def webp_claiming(side: int) -> bytes:
    frame = save(Image.new("RGB", (1, 1)), "WEBP")[12:]
    moving = struct.pack("<4sI6x4sI16x", b"ANIM", 6, b"ANMF", 16 + len(frame)) + frame
    canvas = struct.pack("<I", side - 1)[:3] * 2
    chunks = b"VP8X" + struct.pack("<IB3x", 10, 2) + canvas + moving
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def tiff_claiming(side: int, tile: int) -> bytes:
    tags = {
        256: side,
        257: side,
        258: 8,
        259: 8,  # deflate
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: 8 + 2 + 10 * 12 + 4,
        325: 0,
    }
    pixels = zlib.compress(bytes(2**20))
    tags[325] = len(pixels)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + bytes(4) + pixels


DOT = Image.new("RGB", (1, 1))
HUGE = 60_000
BOMBS = {
    "PNG": png_claiming(HUGE, HUGE),
    "PNG of the largest size": png_claiming(2**31 - 1, 2**31 - 1),
    "PNG one pixel over": png_claiming(MAX_PIXELS + 1, 1),
    "JPEG": patched(save(DOT, "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", HUGE, HUGE)),
    "GIF canvas": gif_claiming(canvas=HUGE, frame=1),
    "GIF frame": gif_claiming(canvas=1, frame=HUGE),
    "BMP": patched(save(DOT, "BMP"), b"BM", 18, struct.pack("<ii", HUGE, HUGE)),
    "PPM": b"P6 60000 60000 255\n",
    "WEBP canvas": webp_claiming(HUGE),
    "JPEG2000": patched(save(DOT, "JPEG2000"), b"ihdr", 4, struct.pack(">II", HUGE, HUGE)),
    "AVIF": patched(save(DOT, "AVIF"), b"ispe", 8, struct.pack(">II", 16_000, 16_000)),
    "TIFF": tiff_claiming(side=HUGE, tile=256),
    "TIFF with tiles larger than itself": tiff_claiming(side=1, tile=HUGE // 2),
    "ICO around a PNG": ico_around(png_claiming(HUGE, HUGE)),
    "ICO around a PNG little over": ico_around(png_claiming(MAX_PIXELS + 1, 1)),
    "ICO around a bitmap": ico_around(
        struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE * 2, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(100)
    ),
}


@pytest.mark.filterwarnings("ignore")  # the limit is the decoder's, not these tests' filter's
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_large_and_takes_little_memory(name: str) -> None:
    with limited_memory(256), pytest.raises(ImageTooLarge, match="pixels"):
        decode(BOMBS[name])


def test_an_image_of_just_the_limit_is_read() -> None:
    assert decode(save(Image.new("L", (MAX_PIXELS, 1)), "PNG")).width == MAX_PIXELS


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
    assert decoder.decode(jpeg, side).size == expected
    assert Decoder(size[0] * size[1]).decode(jpeg, side).size == size


def test_what_is_decoded_smaller_looks_the_same() -> None:
    jpeg = (ROOT / "tests" / "data" / "cat.jpg").read_bytes()
    whole, reduced = (Decoder(10**6, reduced).decode(jpeg, 48) for reduced in (False, True))
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
    small = Decoder(MAX_PIXELS).decode_small(jpeg, 32)
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
    assert Decoder(MAX_PIXELS).decode_small(data, side) is None


def test_a_small_jpeg_that_is_cut_is_corrupt() -> None:
    jpeg = save(Image.effect_noise((32, 32), 90), "JPEG")
    with pytest.raises(CorruptImage):
        Decoder(MAX_PIXELS).decode_small(jpeg[: len(jpeg) // 2], 32)
