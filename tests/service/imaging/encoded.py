"""Pictures of known colours, as bytes of any format, and the decoder under test."""

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from service.imaging.decoder import Decoder

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
    "HEIF": (3, {"quality": 95, "chroma": 444}),
}


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


def noise(format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    if format == "ICO":
        options = {"sizes": [(64, 48)]}
    return save(Image.fromarray(pixels), format, **options)


def patched(data: bytes, find: bytes, offset: int, replacement: bytes) -> bytes:
    start = data.index(find) + offset
    return data[:start] + replacement + data[start + len(replacement) :]


def with_palette(transparency: int | bytes) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return save(image, "PNG", transparency=transparency)


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
