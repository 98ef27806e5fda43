"""What is decoded in the service's own process is bounded by its header, whatever it says."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.imaging.effort import Effort, effort
from tests.service.imaging.encoded import TURNED, exif, noise, patched, save
from tests.support.hostile import jpeg_of_scans

LITTLE, MODERATE, UNKNOWN = Effort.LITTLE, Effort.MODERATE, Effort.UNKNOWN
PICTURE = Image.fromarray(np.zeros((300, 400, 3), np.uint8))
RED = Image.new("RGB", PICTURE.size, "red")


def sized(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height))


def with_chunks(name: bytes, count: int, size: int) -> bytes:
    """A PNG with so many more chunks behind its header."""
    data = noise("PNG")
    body = bytes(size)
    chunk = struct.pack(">I", size) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:33] + chunk * count + data[33:]


def with_segments(kind: int, count: int, size: int) -> bytes:
    """A JPEG with so many more segments before its pixels."""
    data = noise("JPEG")
    return (
        data[:2]
        + (bytes([0xFF, kind]) + struct.pack(">H", size + 2) + bytes(size)) * count
        + data[2:]
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (noise("JPEG")[:100], LITTLE),
        (noise("JPEG"), LITTLE),
        (save(PICTURE.convert("L"), "JPEG"), LITTLE),
        (save(PICTURE, "JPEG", exif=exif(TURNED)), LITTLE),
        (save(PICTURE, "JPEG", restart_marker_rows=1), LITTLE),
        (noise("PNG"), LITTLE),
        (save(PICTURE.convert("P"), "PNG"), LITTLE),
        (save(sized(2000, 2000), "JPEG"), LITTLE),
        (save(sized(2001, 2000), "JPEG"), MODERATE),
        (save(sized(4001, 4000), "JPEG"), UNKNOWN),
        (save(sized(2001, 2000), "PNG"), MODERATE),
        (save(PICTURE, "JPEG", progressive=True), LITTLE),
        (save(PICTURE.convert("CMYK"), "JPEG", progressive=True), LITTLE),
        (jpeg_of_scans(64, 20), LITTLE),
        (jpeg_of_scans(64, 21), UNKNOWN),
        (noise("JPEG") + bytes(2**21), MODERATE),
        (noise("JPEG") + bytes(2**23), UNKNOWN),
        (save(sized(64, 64, "I;16"), "PNG"), MODERATE),
        (noise("WEBP"), LITTLE),
        (noise("WEBP", lossless=True), MODERATE),
        (noise("WEBP", exif=exif(TURNED)), LITTLE),
        (save(Image.new("RGBA", (400, 300), (9, 9, 9, 9)), "WEBP"), MODERATE),
        (save(PICTURE, "WEBP", save_all=True, append_images=[RED]), MODERATE),
        (save(sized(2000, 1000), "WEBP", method=0), LITTLE),
        (save(sized(2001, 1000), "WEBP", method=0), MODERATE),
        (save(sized(4001, 4000), "WEBP", lossless=True, method=0), UNKNOWN),
        (save(sized(4001, 4000), "WEBP", method=0), UNKNOWN),
        (noise("GIF"), UNKNOWN),
        (noise("BMP"), UNKNOWN),
        (noise("AVIF"), UNKNOWN),
        (b"hello", UNKNOWN),
    ],
)
def test_effort_follows_the_header(data: bytes, expected: Effort) -> None:
    assert effort(data) is expected


@pytest.mark.parametrize(
    "data",
    [
        with_segments(0xE5, 2000, 0),
        with_segments(0xE1, 3, 60_000),
        with_chunks(b"tEXt", 2000, 0),
        with_chunks(b"eXIf", 1, 200_000),
        noise("PNG", save_all=True, append_images=[PICTURE.resize((64, 48))]),
        patched(noise("JPEG"), b"\xff\xc0", 4, b"\x0c"),
        patched(noise("JPEG"), b"\xff\xc0", 1, b"\xc9"),
        noise("PNG")[:12],
        b"\xff\xd8\xff\xda\x00\x02",
        b"RIFF\0\0\0\0WEBPVP8X",
    ],
    ids=[
        "segments",
        "bytes in segments",
        "chunks",
        "bytes in chunks",
        "animated",
        "12 bits",
        "arithmetic coding",
        "a cut PNG",
        "a scan of nothing",
        "a cut WebP",
    ],
)
def test_what_is_not_ordinary_is_unknown(data: bytes) -> None:
    assert effort(data) is UNKNOWN
