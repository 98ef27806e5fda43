"""Image files: small ones of every format that is read, then changed."""

import io
import random
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from models.imaging import FORMATS, ImageError, Reader
from models.size import Size
from tests.fuzz import handmade
from tests.fuzz.mutations import mutated

_MAX_PIXELS = 10**6
_MODES: dict[str, tuple[str, ...]] = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "ICO": ("RGB", "RGBA"),
    "HEIF": ("RGB", "RGBA"),
}
_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({}, {"progressive": True}),
    "PNG": ({}, {"bits": 2}),
    "WEBP": ({}, {"lossless": True}),
    "GIF": ({}, {"interlace": False}),
    "TIFF": (
        {},
        *({"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        {"compression": "jpeg"},
        {"compression": "group4"},
    ),
    "JPEG2000": ({}, {"tile_size": (16, 16)}, {"no_jp2": True}),
    "ICO": ({}, {"bitmap_format": "bmp"}),
}
_MODES_OF_COMPRESSIONS = {"jpeg": ("L", "RGB"), "group4": ("1",)}
_ANIMATED = ("PNG", "WEBP", "GIF", "TIFF", "AVIF")


def make(chance: random.Random) -> bytes:
    files = _files()
    return mutated(chance, chance.choice(files), files)


def take(data: bytes) -> None:
    """Only what the reader documents may be raised."""
    for covers in (None, Size.of(16)):
        try:
            image = Reader(_MAX_PIXELS, reduced=covers is not None).read(io.BytesIO(data), covers)
        except (ImageError, MemoryError):
            continue
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= _MAX_PIXELS
        image.load()


@cache
def _files() -> tuple[bytes, ...]:
    found = handmade.files()
    for name in FORMATS:
        for mode in _MODES[name]:
            for options in _OPTIONS.get(name, ({},)):
                if mode in _MODES_OF_COMPRESSIONS.get(options.get("compression", ""), (mode,)):
                    found += _saved(_picture(mode), name, **options)
        if name in _ANIMATED:
            others = [_picture("RGB").transpose(Image.Transpose.ROTATE_180)]
            found += _saved(_picture("RGB"), name, save_all=True, append_images=others)
        turned = Image.Exif()
        turned[274] = 6
        found += _saved(_picture("RGB"), name, exif=turned, icc_profile=bytes(200))
    return tuple(found)


def _saved(image: Image.Image, name: str, **options: Any) -> list[bytes]:
    """One file, or none where the format cannot hold it."""
    file = io.BytesIO()
    try:
        image.save(file, name, **options)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [file.getvalue()]


def _picture(mode: str) -> Image.Image:
    """Of 24 x 20 pixels, half a ramp and half noise."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 24, 4), np.uint8)
    pixels[:10] = np.linspace(0, 255, 24, dtype=np.uint8)[:, None]
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)
