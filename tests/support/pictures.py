"""Pictures to send: one photograph in several formats and sizes, and noise."""

import io
import random
from functools import cache

from PIL import Image

from tests.support.server import ROOT


@cache
def photos(max_bytes: int) -> tuple[bytes, ...]:
    """The cat as JPEG, PNG and WebP, 20 to 768 pixels wide; files that are larger are left out."""
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as opened:
        cat = opened.convert("RGB")
    files = []
    for width in (20, 32, 50, 100, 200, 320, 512, 768):
        small = cat.resize((width, width * cat.height // cat.width))
        for kind in ("JPEG", "PNG", "WEBP"):
            file = io.BytesIO()
            small.save(file, kind)
            if file.tell() < max_bytes:
                files.append(file.getvalue())
    return tuple(files)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def noise(source: random.Random) -> bytes:
    """A random picture of 32 x 32 pixels."""
    return png(Image.frombytes("RGB", (32, 32), source.randbytes(32 * 32 * 3)))
