"""What the header of a JPEG 2000 codestream asks for: tiles and components.

OpenJPEG takes memory for each of them before it decodes a pixel, however few pixels there are.
"""

import struct
from collections.abc import Iterator

_START = b"\xff\x4f\xff\x51"  # of a codestream, and of the segment SIZ in it (ISO 15444-1, A.5.1)
_SIZ = struct.Struct(">4x8IH")  # width, height and tiles with their offsets; components
STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", _START)  # of a file in its own format, or a bare codestream


def tile_components(data: bytes) -> int:
    """Tiles by components, the most that any codestream in the file claims."""
    return max(_claims(data), default=0)


def _claims(data: bytes) -> Iterator[int]:
    start = data.find(_START)
    while start >= 0:
        at = start + len(_START)
        if at + _SIZ.size <= len(data):
            width, height, _, _, tile_width, tile_height, left, top, components = _SIZ.unpack_from(
                data, at
            )
            across = -(-max(0, width - left) // max(1, tile_width))
            down = -(-max(0, height - top) // max(1, tile_height))
            yield across * down * components
        start = data.find(_START, at)
