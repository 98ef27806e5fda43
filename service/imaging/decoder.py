"""Bytes to pictures, or the service's error that says why not; and pixels to PNG."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from models.arrays import Pixels
from models.imaging import (
    FORMATS,
    CostlyImage,
    DamagedImage,
    OversizedImage,
    Reader,
    UnsupportedImage,
)
from models.size import Size
from service.errors import (
    CorruptImage,
    ImageTooCostly,
    ImageTooLarge,
    NoImage,
    OutOfMemory,
    UnsupportedMedia,
)

_JPEG = b"\xff\xd8\xff"
_SMALL_BYTES, _SMALL_PIXELS = 16 * 2**10, 64 * 64


class Decoder:
    """Decodes pictures of at most `max_pixels`; the rest as in `models.imaging.Reader`."""

    def __init__(
        self, max_pixels: int, reduced: bool = False, formats: Sequence[str] = FORMATS
    ) -> None:
        self._reader = Reader(max_pixels, reduced, formats)

    def tries(self, data: bytes) -> bool:
        """Whether the bytes may be a picture; if not, `decode` refuses them at once."""
        return self._reader.tries(data)

    def decode(self, data: bytes, covers: Size | None = None) -> Image.Image:
        """What the reader makes of the bytes; `covers` as there.

        Raises `NoImage`, `UnsupportedMedia`, `CorruptImage`, `ImageTooLarge`, `ImageTooCostly` or
        `OutOfMemory`.
        """
        if not data:
            raise NoImage("the image is empty")
        with _service_errors():
            return self._reader.read(io.BytesIO(data), covers)

    def decode_small(self, data: bytes, covers: Size) -> Image.Image | None:
        """The same picture if it is a JPEG of few pixels; None for every other image.

        A small JPEG takes some 0.1 ms with its resizing. Other formats may unpack to much more
        than their pixels.
        """
        if len(data) > _SMALL_BYTES or covers.area > _SMALL_PIXELS or not data.startswith(_JPEG):
            return None
        with _service_errors():
            return self._reader.read_small_jpeg(data, covers, _SMALL_PIXELS)


def encode_png(pixels: Pixels) -> bytes:
    """Pixels [H, W, 3] as a PNG, which loses nothing."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


@contextmanager
def _service_errors() -> Iterator[None]:
    """Translate what reading an image raises."""
    try:
        yield
    except UnsupportedImage as exc:
        raise UnsupportedMedia(str(exc)) from exc
    except DamagedImage as exc:
        raise CorruptImage(str(exc)) from exc
    except OversizedImage as exc:
        raise ImageTooLarge(str(exc)) from exc
    except CostlyImage as exc:
        raise ImageTooCostly(str(exc)) from exc
    except MemoryError as exc:
        raise OutOfMemory("decoding failed for lack of memory", retry_after_s=1) from exc
