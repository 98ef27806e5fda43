"""Headers that ask for far more memory or time than the picture's pixels are worth.

A few kilobytes can ask for gigabytes or minutes. The bounds are far above what cameras and programs
write.
"""

from typing import IO

from models.imaging import jpeg2000, tiff
from models.imaging.errors import CostlyImage

_MAX_SCANS = 100  # of a JPEG; a progressive one usually has some ten
_MAX_SCANNED_PIXELS = 2 * 10**9  # of all scans of a JPEG together
_MAX_TILE_COMPONENTS = 2**14  # of a JPEG 2000
_MAX_PIECES = 200_000  # strips or tiles of a TIFF
_SCAN = b"\xff\xda"  # begins a scan of a JPEG, and is in no scan's data


def check_pieces(file: IO[bytes]) -> None:
    """Before a file is opened, which Pillow lists the pieces of. Raises `CostlyImage`."""
    data = _start_of(file, max(map(len, (*jpeg2000.STARTS, *tiff.STARTS))))
    if data.startswith(jpeg2000.STARTS):
        claimed = jpeg2000.tile_components(_content(file))
        if claimed > _MAX_TILE_COMPONENTS:
            raise CostlyImage(f"the image claims {claimed:,} components of tiles")
    elif data.startswith(tiff.STARTS):
        claimed = tiff.pieces(_content(file))
        if claimed > _MAX_PIECES:
            raise CostlyImage(f"the image claims {claimed:,} strips or tiles")


def check_scans(file: IO[bytes], pixels: int) -> None:
    """Before a JPEG of so many pixels is decoded. Raises `CostlyImage`."""
    scans = _content(file).count(_SCAN)
    if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
        raise CostlyImage(f"the image has {pixels:,} pixels in {scans:,} scans")


def _start_of(file: IO[bytes], count: int) -> bytes:
    start = file.read(count)
    file.seek(0)
    return start


def _content(file: IO[bytes]) -> bytes:
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    return content
