"""Untrusted bytes to an upright RGB picture, or an error that says why not.

Everything that one client's image can break happens here, before anything is queued.
"""

import io
import struct
import warnings
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import CorruptImage, ImageTooLarge, NoImage, UnsupportedMedia

# Formats whose readers are pure image decoders: none that runs programs or follows links.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
_BACKGROUND = "white"  # behind transparent pixels
# What Pillow's readers raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    EOFError,
    struct.error,
    MemoryError,
)


class Decoder:
    """Decodes pictures of at most `max_pixels`.

    Pillow keeps its own limit and its warning filter for the whole process: the last
    decoder made sets them.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def decode(self, data: bytes) -> Image.Image:
        """The first frame, upright by its EXIF orientation, transparency over white, RGB."""
        if not data:
            raise NoImage("the image is empty")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_size(image.size)
                image.load()
                upright: Image.Image = image
                with suppress(*_DAMAGED):  # broken metadata does not spoil the picture
                    upright = ImageOps.exif_transpose(image)
                return _rgb(upright)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as exc:
            raise ImageTooLarge(f"the image has more than {self._max_pixels:,} pixels") from exc
        except UnidentifiedImageError as exc:
            raise UnsupportedMedia(
                "the bytes are not an image in a format that is read: " + ", ".join(FORMATS)
            ) from exc
        except _DAMAGED as exc:
            raise CorruptImage("the image is truncated or damaged") from exc

    def _check_size(self, size: tuple[int, int]) -> None:
        width, height = size
        if width < 1 or height < 1:
            raise CorruptImage("the image has no pixels")
        if width * height > self._max_pixels:
            raise ImageTooLarge(
                f"the image has {width} x {height} pixels; at most {self._max_pixels:,} are read"
            )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnsupportedMedia("floating-point pixels have no agreed range; send integers")
    if image.mode.startswith("I"):  # 16 bits a pixel: keep the upper eight
        high = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, _BACKGROUND)
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
