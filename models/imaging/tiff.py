"""How many strips or tiles a TIFF claims, each of which Pillow lists when it opens the file."""

import struct

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OFFSETS = (273, 324)  # tags: where each strip or each tile begins


def pieces(data: bytes) -> int:
    """Strips or tiles of the first picture, as its directory says; 0 if that cannot be read."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    start, count, entry = ("8xQ", "Q", "HHQ8x") if big else ("4xI", "H", "HHI4x")
    try:
        (at,) = struct.unpack_from(order + start, data)
        (entries,) = struct.unpack_from(order + count, data, at)
        directory = data[at + struct.calcsize("=" + count) :][
            : entries * struct.calcsize("=" + entry)
        ]
        found = struct.iter_unpack(order + entry, directory)
        return sum(claimed for tag, _, claimed in found if tag in _OFFSETS)
    except struct.error:
        return 0
