"""The reader: what may be read, at what cost, and how Pillow's pictures become upright RGB."""

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from models.imaging import costs, heif, jpeg2000, png, tiff
from models.imaging.errors import DamagedImage, ImageError, OversizedImage, UnsupportedImage
from models.size import Size

# Formats whose readers are pure image decoders: none that runs programs or follows links.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"),
    *heif.FORMATS,
)
# Those that people and programs upload. The readers of the others are used, and attacked, less.
COMMON_FORMATS = (*("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"), *heif.FORMATS)
MAX_PIXELS = 64 * 10**6  # of the largest image unless a reader is told otherwise
# At the most, reading takes this much memory for each pixel of the largest image.
MAX_BYTES_PER_PIXEL = 24

# How files of formats begin that may be switched off; the beginning of others is less clear.
_STARTS = {
    "TIFF": tiff.STARTS,
    "JPEG2000": jpeg2000.STARTS,
    "PPM": tuple(b"P%d" % kind for kind in range(1, 8)),
    "ICO": (b"\0\0\1\0",),
}

_START_BYTES = 16  # that Pillow recognises formats by
_BACKGROUND = "white"  # behind transparent pixels
_BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF tags
_WHITE_IS_ZERO = 0
_XMP = ("xmp", "XML:com.adobe.xmp")  # where Pillow keeps it
_TURNED_BY_THEIR_READERS = ("TIFF", "HEIF")
# What Pillow's readers raise on damaged files.
_PILLOW_ERRORS = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
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

# Pillow reads grey of 16 bits in which white is zero, but not with the most significant byte first.
TiffImagePlugin.OPEN_INFO[TiffImagePlugin.MM, _WHITE_IS_ZERO, (1,), 1, (16,), ()] = (
    "I;16B",
    "I;16B",
)


class Reader:
    """Reads images of at most `max_pixels` in some of the formats.

    Pillow keeps its own limit and its warning filter for the whole process: the last reader made
    sets them.
    """

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        reduced: bool = False,
        formats: Sequence[str] = FORMATS,
    ) -> None:
        """With `reduced`, JPEGs may be decoded smaller, never below twice the size needed."""
        self._max_pixels = max_pixels
        self._reduced = reduced
        self._formats = tuple(formats)
        Image.init()
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def tries(self, data: bytes) -> bool:
        """Whether a file begins like one of the formats; any other is refused unread."""
        openers = (Image.OPEN[name] for name in self._formats)
        return any(accept is None or accept(data[:_START_BYTES]) for _, accept in openers)

    def read(self, file: BinaryIO, covers: Size | None = None) -> Image.Image:
        """The first frame, upright by its EXIF orientation, transparency over white, RGB.

        `covers` is the size that it will be resized to cover, where that is known.
        Raises `ImageError`, or `MemoryError`.
        """
        with self._opened(file, self._formats) as image:
            return self._decoded(image, covers)

    def read_small_jpeg(self, data: bytes, covers: Size, max_pixels: int) -> Image.Image | None:
        """What `read` gives for a JPEG of at most `max_pixels`; None for a larger one."""
        with self._opened(io.BytesIO(data), ("JPEG",)) as image:
            small = image.width * image.height <= max_pixels
            return self._decoded(image, covers) if small else None

    @contextmanager
    def _opened(self, file: BinaryIO, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
        """An image whose size is known, with Pillow's errors as this module's."""
        try:
            costs.check_pieces(file)
            file = png.without_text(file)
            with Image.open(file, formats=formats) as image:
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as exc:
            raise OversizedImage(f"the image has more than {self._max_pixels:,} pixels") from exc
        except UnidentifiedImageError as exc:
            raise self._unidentified(file) from exc
        except _PILLOW_ERRORS as exc:
            raise DamagedImage("the image is truncated or damaged") from exc

    def _decoded(self, image: ImageFile.ImageFile, covers: Size | None) -> Image.Image:
        self._check_size(image)
        if image.format == "JPEG" and image.fp:
            costs.check_scans(image.fp, image.width * image.height)
        if self._reduced and covers:  # a half, a quarter or an eighth, of JPEGs only
            image.draft(None, (2 * max(covers), 2 * max(covers)))
        for name in _XMP:  # Pillow turns some pictures by an orientation in it
            image.info.pop(name, None)
        image.load()
        return _rgb(_upright(image))

    def _check_size(self, image: ImageFile.ImageFile) -> None:
        """Before any pixel is decoded."""
        sizes = [image.size]
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # whole tiles are decoded
            sizes.append((image.tag_v2.get(_TILE_WIDTH, 1), image.tag_v2.get(_TILE_LENGTH, 1)))
        if image.format == "HEIF" and image.fp:
            image.fp.seek(0)
            sizes += heif.sizes(image.fp.read())
        for width, height in sizes:
            if width < 1 or height < 1:
                raise DamagedImage("the image has no pixels")
            if width * height > self._max_pixels:
                raise OversizedImage(
                    f"the image has {width} x {height} pixels; "
                    f"at most {self._max_pixels:,} are allowed"
                )

    def _unidentified(self, file: BinaryIO) -> ImageError:
        """Why none of the readers takes a file."""
        file.seek(0)
        start = file.read(heif.START_BYTES)  # no other format needs more
        if heif.is_heif(start):
            if "HEIF" in self._formats:
                return DamagedImage("the image is truncated or damaged")
            if not heif.FORMATS:
                return UnsupportedImage(
                    "HEIC and HEIF are read only where the package pillow-heif is installed, which "
                    "the extra heif brings; send a JPEG"
                )
        for name, starts in _STARTS.items():
            if name not in self._formats and start.startswith(starts):
                return UnsupportedImage(f"{name} is a format that is switched off here")
        return UnsupportedImage(
            "the bytes are not an image in a supported format: " + ", ".join(self._formats)
        )


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    """The picture as its EXIF says that it stands, whatever XMP says."""
    if image.format in _TURNED_BY_THEIR_READERS or "exif" not in image.info:
        return image
    try:
        exif = Image.Exif()
        exif.load(image.info["exif"])
        turn = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation))
    except _PILLOW_ERRORS:  # broken metadata does not spoil the picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnsupportedImage("floating-point pixels have no agreed range; send integers")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        if image.mode != "RGBA":
            image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper eight of up to 16 bits a pixel, with one transparent value as alpha."""
    values = np.asarray(image)
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = min(bits, *image.tag_v2.get(_BITS, (bits,)))
        inverted = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    upper = (values.clip(0, 2**bits - 1) >> bits - 8).astype(np.uint8)
    grey = Image.fromarray(~upper if inverted else upper)
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey
