"""Pictures with too many pixels are refused before memory is taken for them."""

import struct
import zlib

import pytest
from PIL import Image

from service.errors import ImageTooLarge
from tests.service.imaging.encoded import (
    MAX_PIXELS,
    decode,
    patched,
    save,
)
from tests.support.memory import limited_memory


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
