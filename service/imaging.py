"""Untrusted bytes to an upright RGB picture, or an error that says why not.

Everything that one client's image can break happens here, before anything is queued.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from models.arrays import Pixels
from models.preprocess import READER_ERRORS
from service.errors import CorruptImage, ImageTooLarge, NoImage, OutOfMemory, UnsupportedMedia

# Formats whose readers are pure image decoders: none that runs programs or follows links.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
_BACKGROUND = "white"  # behind transparent pixels
_JPEG = b"\xff\xd8\xff"
_SMALL_BYTES, _SMALL_PIXELS = 16 * 2**10, 64 * 64
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
# EXIF orientation to what turns the picture upright.
_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoder:
    """Decodes pictures of at most `max_pixels`.

    Pillow keeps its own limit and its warning filter for the whole process: the last
    decoder made sets them.
    """

    def __init__(self, max_pixels: int, reduced: bool = False) -> None:
        """`reduced`: JPEGs may be decoded smaller, never below twice the side that is needed."""
        self._max_pixels = max_pixels
        self._reduced = reduced
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def decode(self, data: bytes, side: int = 0) -> Image.Image:
        """The first frame, upright by its EXIF orientation, transparency over white, RGB.

        `side` is what its shorter side will be resized to, in pixels, where that is known.
        Raises `NoImage`, `UnsupportedMedia`, `CorruptImage`, `ImageTooLarge` or `OutOfMemory`.
        """
        if not data:
            raise NoImage("the image is empty")
        with self._failures_told(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return self._read(image, side)

    def decode_small(self, data: bytes, side: int) -> Image.Image | None:
        """The same of JPEGs of few pixels, which take some 0.1 ms with their resizing; else None.

        Other formats may unpack much more than their pixels.
        """
        if len(data) > _SMALL_BYTES or side**2 > _SMALL_PIXELS or not data.startswith(_JPEG):
            return None
        with self._failures_told(), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return self._read(image, side) if image.width * image.height <= _SMALL_PIXELS else None

    def _read(self, image: ImageFile.ImageFile, side: int) -> Image.Image:
        self._check_size(image)
        if self._reduced and side:  # a half, a quarter or an eighth, of JPEGs only
            image.draft(None, (2 * side, 2 * side))
        image.load()
        return _rgb(_upright(image))

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as exc:
            raise ImageTooLarge(f"the image has more than {self._max_pixels:,} pixels") from exc
        except UnidentifiedImageError as exc:
            raise UnsupportedMedia(
                "the bytes are not an image in a format that is read: " + ", ".join(FORMATS)
            ) from exc
        except MemoryError as exc:
            raise OutOfMemory("decoding failed for lack of memory", retry_after_s=1) from exc
        except READER_ERRORS as exc:
            raise CorruptImage("the image is truncated or damaged") from exc

    def _check_size(self, image: ImageFile.ImageFile) -> None:
        """Before any pixel is decoded."""
        sizes = [image.size]
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # whole tiles are decoded
            sizes.append((image.tag_v2.get(_TILE_WIDTH, 1), image.tag_v2.get(_TILE_LENGTH, 1)))
        for width, height in sizes:
            if width < 1 or height < 1:
                raise CorruptImage("the image has no pixels")
            if width * height > self._max_pixels:
                raise ImageTooLarge(
                    f"the image has {width} x {height} pixels; "
                    f"at most {self._max_pixels:,} are read"
                )


def encode_png(pixels: Pixels) -> bytes:
    """Pixels [H, W, 3] as a picture that loses nothing."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except READER_ERRORS:  # broken metadata does not spoil the picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnsupportedMedia("floating-point pixels have no agreed range; send integers")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, _BACKGROUND)
        canvas.alpha_composite(image)
        image = canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Of 16 bits a pixel the upper eight, with one transparent value as alpha."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey
