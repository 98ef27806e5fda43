"""Image files that Pillow does not write, and whose headers cost a reader most when they change."""

import struct


def files() -> list[bytes]:
    return [
        *_PLAIN,
        _bitmap(1, 8, b"\x08\1\0\0\0\2\0\1\0\3abc\0\5\2\0\0\x08\3\0\1"),
        _bitmap(2, 4, b"\x08\x12\0\0" * 4 + b"\0\1"),
        _tiff(strips=3),
        _jpeg_2000(tile=8, precincts=b""),
        _jpeg_2000(tile=16, precincts=b"\x44"),
    ]


_PLAIN = (
    b"P1\n3 2\n101 010\n",
    b"P2\n# two\n2 2\n255\n0 128 255 7\n",
    b"P3\n1 2\n9\n1 2 3 9 8 7\n",
    b"P5\n2 2\n1000\n" + bytes(8),
    b"P6\n2 1\n254\n" + bytes(6),
)


def _bitmap(compression: int, bits: int, runs: bytes) -> bytes:
    """A BMP of 8 x 4 pixels, run-length encoded."""
    palette = bytes(range(64)) * (4 if bits == 8 else 1)
    start = 54 + len(palette)
    size = (40, 8, 4, 1, bits, compression, len(runs), 1, 1, len(palette) // 4, 0)
    header = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    return header + struct.pack("<IiiHHIIiiII", *size) + palette + runs


def _tiff(strips: int) -> bytes:
    """A TIFF of 8 x 6 grey pixels, not compressed, in strips of two rows."""
    pixels = bytes(range(48))
    offsets = struct.pack(f"<{strips}I", *range(8, 8 + 16 * strips, 16))
    entries = [
        *[(256, 4, 1, 8), (257, 4, 1, 6), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)],
        *[(273, 4, strips, 8 + len(pixels)), (277, 3, 1, 1), (278, 4, 1, 2)],
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 8 + len(pixels) + len(offsets)
    header = struct.pack("<2sHI", b"II", 42, start)
    return header + pixels + offsets + struct.pack("<H", len(entries)) + directory + bytes(4)


def _jpeg_2000(tile: int, precincts: bytes) -> bytes:
    """The beginning of a codestream of 16 x 16 grey pixels."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    size = struct.pack(">HIIIIIIIIH", 0, 16, 16, 0, 0, tile, tile, 0, 0, 1) + b"\7\1\1"
    style = bytes([bool(precincts), 0, 0, 1, 0, 0, 2, 2, 0, 1]) + precincts
    return (
        b"\xff\x4f"
        + segment(0xFF51, size)
        + segment(0xFF52, style)
        + segment(0xFF5C, b"\x40\x40")
        + segment(0xFF90, struct.pack(">HIBB", 0, 0, 0, 1))
        + b"\xff\x93\xff\xd9"
    )
