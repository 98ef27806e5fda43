"""HEIC and HEIF as phones write them, with pillow-heif; and what is said where it is missing."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.imaging import heif
from service.errors import CorruptImage, ImageTooLarge, ServiceError
from tests.service.imaging.encoded import (
    MAX_PIXELS,
    assert_quarters,
    decode,
    quarters,
    save,
)
from tests.support.memory import limited_memory
from tests.support.server import ROOT

needs_reader = pytest.mark.skipif(not heif.FORMATS, reason="pillow-heif is not installed")
SIZE = b"ispe\0\0\0\0"
START = b"\0\0\0\x18ftyp"
HUGE = (16_000, 16_000)


def heic(image: Image.Image, **options: object) -> bytes:
    return save(image, "HEIF", quality=95, chroma=444, **options)


def resized(data: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """The same file with another size in its headers."""
    assert SIZE + struct.pack(">II", *old) in data
    return data.replace(SIZE + struct.pack(">II", *old), SIZE + struct.pack(">II", *new))


@needs_reader
@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_every_brand_of_the_container_is_read(brand: bytes) -> None:
    data = heic(quarters()).replace(b"ftypheic", b"ftyp" + brand, 1)
    assert_quarters(decode(data), tolerance=3)


@needs_reader
def test_a_grid_of_tiles_is_read_whole() -> None:
    """As phones store photographs."""
    photo = Image.open(ROOT / "tests" / "data" / "cat.jpg").convert("RGB")
    data = heic(photo, tile_size=128)
    assert data.count(b"infe") > 4
    found = decode(data)
    assert found.size == photo.size
    difference = np.asarray(found).astype(int) - np.asarray(photo)
    assert np.abs(difference).mean() < 3


@needs_reader
def test_the_containers_own_turn_counts_and_not_that_in_exif() -> None:
    """Phones write both; a reader that heeded both would turn the picture twice."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    entry = struct.pack(">HHIH", ExifTags.Base.Orientation, 3, 1, 1)
    data = heic(quarters(), exif=exif.tobytes())
    little = struct.pack("<HHIH", ExifTags.Base.Orientation, 3, 1, 1)
    assert (entry in data) != (little in data)
    turned = data.replace(entry, entry[:-1] + b"\6").replace(little, little[:-2] + b"\6\0")
    assert turned != data
    assert_quarters(decode(turned), tolerance=3)


@needs_reader
def test_transparency_stands_over_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    found = np.asarray(decode(heic(image)))
    np.testing.assert_allclose(found[32, [8, 56]], [(255, 0, 0), (255, 255, 255)], atol=4)


@needs_reader
@pytest.mark.parametrize("channels", [1, 3])
def test_ten_bits_become_eight(channels: int) -> None:
    import pillow_heif

    mode = "RGB;16" if channels == 3 else "L;16"
    levels = np.full((64, 64, channels), 40_000, np.uint16)
    encoded = io.BytesIO()
    pillow_heif.from_bytes(mode, (64, 64), levels.tobytes()).save(encoded, quality=-1)
    np.testing.assert_allclose(np.asarray(decode(encoded.getvalue())), 40_000 >> 8, atol=2)


@needs_reader
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}], ids=["one picture", "grid"])
def test_a_picture_with_too_many_pixels_is_refused(tiles: dict[str, int]) -> None:
    data = heic(Image.new("RGB", (MAX_PIXELS // 1000, 1001)), **tiles)
    with limited_memory(64), pytest.raises(ImageTooLarge, match="1,000,000"):
        decode(data)


@needs_reader
def test_a_little_of_a_huge_picture_is_too_large() -> None:
    """Its own size is small because nearly all of it is cut off."""
    data = heic(Image.new("RGB", (60, 50)))
    assert b"clap" in data
    (size,) = {data[at + 8 : at + 16] for at in range(len(data)) if data.startswith(SIZE, at)}
    coded = struct.unpack(">II", size)
    with limited_memory(64), pytest.raises(ImageTooLarge, match="16000"):
        decode(resized(data, coded, HUGE))


@needs_reader
def test_a_grid_that_is_larger_than_it_says_is_too_large() -> None:
    data = heic(Image.new("RGB", (256, 128)), tile_size=64)
    described = struct.pack(">BBBBHH", 0, 0, 1, 3, 256, 128)
    assert described in data
    claimed = data.replace(described, struct.pack(">BBBBHH", 0, 0, 1, 3, *HUGE))
    with limited_memory(64), pytest.raises(ImageTooLarge, match="16000"):
        decode(claimed)


@needs_reader
def test_a_picture_that_is_larger_than_it_says_is_corrupt_in_little_memory() -> None:
    """Encoded fast: it is the decoder's memory that counts."""
    data = heic(Image.new("RGB", (2560, 2560)), enc_params={"preset": "ultrafast"})
    with limited_memory(16), pytest.raises(CorruptImage):
        decode(resized(data, (2560, 2560), (64, 64)))


@needs_reader
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_cut_picture_is_corrupt(share: float) -> None:
    data = heic(Image.effect_noise((64, 64), 90))
    with pytest.raises(CorruptImage):
        decode(data[: int(len(data) * share)])


def test_without_the_package_the_refusal_names_it() -> None:
    """In a process that cannot import it, as where the extra is not installed."""
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from service.imaging.decoder import Decoder\n"
        "from service.errors import UnsupportedMedia\n"
        f"try: Decoder(1000).decode({START + b'heic' + bytes(100)!r})\n"
        "except UnsupportedMedia as exc: print(exc.detail)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pillow-heif" in said.stdout


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_what_only_begins_like_one_is_the_clients_fault(brand: bytes) -> None:
    with pytest.raises(ServiceError) as refused:
        decode(START + brand + bytes(100))
    assert refused.value.status == (400 if heif.FORMATS else 415)
