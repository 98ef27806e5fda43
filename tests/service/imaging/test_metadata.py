"""Text, profiles and XMP in a picture neither spoil it nor turn it nor take memory."""

import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.errors import CorruptImage
from tests.service.imaging.encoded import (
    BLUE,
    GREEN,
    ORIENTATION,
    RED,
    SAVED,
    YELLOW,
    assert_quarters,
    colours,
    decode,
    quarters,
    save,
)
from tests.support.memory import limited_memory

LARGE = 200 * 2**20  # bytes of a text once it is unpacked
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def packed(name: bytes, size: int) -> bytes:
    """A chunk of a PNG whose compressed content has so many bytes."""
    before = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0en\0\0", b"iCCP": b"profile\0\0"}
    return chunk(name, before[name] + compressed_zeros(size))


@cache
def compressed_zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def with_chunk(png: bytes, extra: bytes, before: bytes) -> bytes:
    start = png.index(before) - 4
    return png[:start] + extra + png[start:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_much_compressed_text_is_read_in_little_memory(
    name: bytes, before: bytes
) -> None:
    data = with_chunk(save(quarters(), "PNG"), packed(name, LARGE), before)
    with limited_memory(LARGE // 2**20 // 2):
        assert_quarters(decode(data), tolerance=0)


def test_a_png_with_many_texts_is_read() -> None:
    """Each is small enough for Pillow, and all together are not."""
    texts = packed(b"zTXt", 2**20) * 70 + chunk(b"tEXt", b"Comment\0" + bytes(2**20))
    assert_quarters(decode(with_chunk(save(quarters(), "PNG"), texts, b"IDAT")), tolerance=0)


def test_what_decides_over_pixels_stays() -> None:
    """Palette, transparency and EXIF beside text and a profile."""
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = quarters().quantize(4)
    clear = image.getpixel((0, 0))
    data = save(image, "PNG", transparency=clear, icc_profile=profile, exif=exif.tobytes())
    data = with_chunk(data, packed(b"zTXt", 2**21), b"IDAT")
    white = (255, 255, 255)
    assert colours(decode(data)) == [[YELLOW, BLUE], [GREEN, white]]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_png_cut_in_its_text_is_corrupt(share: float) -> None:
    text = packed(b"zTXt", LARGE)
    data = with_chunk(save(quarters(), "PNG"), text, b"IDAT")
    with pytest.raises(CorruptImage):
        decode(data[: data.index(b"zTXt") + int(len(text) * share)])


@pytest.mark.parametrize("exif", [b"", b"II*\0\x08\0\0\0" + bytes(6)], ids=["no EXIF", "EXIF"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_does_not_turn_a_picture(format: str, exif: bytes) -> None:
    tolerance, options = SAVED[format]
    assert_quarters(decode(save(quarters(), format, **options, **xmp(format, exif))), tolerance)


def xmp(format: str, exif: bytes) -> dict[str, Any]:
    """What `Image.save` needs so that the file has both."""
    if format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return {"pnginfo": info} | ({"exif": exif} if exif else {})
    if format == "TIFF":
        return {"tiffinfo": {700: XMP}}
    return {"xmp": XMP} | ({"exif": exif} if exif else {})


def test_exif_turns_a_picture_whatever_xmp_says() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    upside_down = quarters().transpose(Image.Transpose.ROTATE_180)
    data = save(upside_down, "JPEG", quality=95, xmp=XMP, exif=exif.tobytes())
    assert np.allclose(colours(decode(data))[0][0], RED, atol=3)
