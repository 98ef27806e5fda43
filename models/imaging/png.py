"""PNG files without their text and colour profiles, which nothing in the project reads.

Pillow unpacks each of them, and refuses the whole picture if one has more than 1 MiB.
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNREAD = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")
_AROUND = 12  # bytes of a chunk besides its content: length, type, checksum


def without_text(file: BinaryIO) -> BinaryIO:
    """The file at its beginning, or a copy without these chunks if it is a PNG that has some.

    Whatever else is in the file stays as it is, damaged or not.
    """
    is_png = file.read(len(_SIGNATURE)) == _SIGNATURE
    file.seek(0)
    if not is_png:
        return file
    data = file.read()
    file.seek(0)
    if not any(name in data for name in _UNREAD):
        return file
    return io.BytesIO(b"".join(_kept(data)))


def _kept(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    kept_from = start = len(_SIGNATURE)
    yield view[:start]
    while start + _AROUND <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + _AROUND + length
        if name in _UNREAD and end <= len(data):
            yield view[kept_from:start]
            kept_from = end
        start = end
    yield view[kept_from:]
