"""Files that ask their decoder for far more than their pixels are worth."""

import struct


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A grey progressive JPEG of side x side pixels: one scan of its means, then empty ones.

    All codes are of one bit: a difference of zero, or the end of a run of blocks.
    """

    def segment(kind: int, body: bytes) -> bytes:
        return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body

    def scan(first: int, last: int) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, 0]))

    blocks = ((side + 7) // 8) ** 2
    one_code = bytes([1] + [0] * 15) + b"\0"
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([16] * 64)),
            segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])),
            segment(0xC4, b"\x00" + one_code),
            segment(0xC4, b"\x10" + one_code),
            scan(0, 0) + bytes(-(-blocks // 8)),
            *[scan(1, 63) + bytes(-(-blocks // 8)) for _ in range(scans - 1)],
            b"\xff\xd9",
        ]
    )


def tiff_of_strips(count: int, order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one pixel whose directory lists so many strips."""
    number, entries, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    mark = {"<": b"II", ">": b"MM"}[order]
    start = struct.pack(order + ("HHH" if big else "H"), *((43, 8, 0) if big else (42,)))
    first = len(mark + start) + struct.calcsize("=" + number)
    offsets = struct.pack(order + "I", 8) * count
    tags = [
        *((256, 1), (257, 1), (258, 8), (259, 1), (262, 1)),
        *((273, first), (277, 1), (278, 1), (279, 1)),
    ]
    directory = struct.pack(order + entries, len(tags)) + b"".join(
        struct.pack(order + entry, tag, 4, count if tag == 273 else 1, value)
        if big or tag == 273
        else struct.pack(order + "HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    at = struct.pack(order + number, first + len(offsets))
    return mark + start + at + offsets + directory + bytes(8)


def codestream(tiles: tuple[int, int], components: int) -> bytes:
    """A JPEG 2000 that claims tiles of one pixel each, and has the pixels of none."""

    def segment(kind: int, body: bytes) -> bytes:
        return struct.pack(">HH", kind, len(body) + 2) + body

    size = struct.pack(">HIIIIIIIIH", 0, *tiles, 0, 0, 1, 1, 0, 0, components)
    return b"".join(
        [
            b"\xff\x4f",
            segment(0xFF51, size + bytes([7, 1, 1]) * components),
            segment(0xFF52, bytes([0, 0, 0, 1, 0, 0, 2, 2, 0, 1])),
            segment(0xFF5C, bytes([0x40, 0x40])),
            struct.pack(">HHHIBB", 0xFF90, 10, 0, 0, 0, 1),
            b"\xff\x93\xff\xd9",
        ]
    )


def bmp_of_line_ends(pixels: int) -> bytes:
    """A BMP one pixel high that ends its line after a pixel: Pillow fills the others in Python."""
    body = bytes([1, 0, 0, 0]) * 2
    palette = bytes(4 * 16)
    header = struct.pack("<IiiHHIIiiII", 40, pixels, 1, 1, 4, 2, len(body), 0, 0, 16, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def precincts(side: int) -> bytes:
    """A JPEG 2000 of side x side pixels that is cut into precincts of one pixel."""

    def segment(kind: int, body: bytes) -> bytes:
        return struct.pack(">HH", kind, len(body) + 2) + body

    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, side, side, 0, 0, 4)
    return b"".join(
        [
            b"\xff\x4f",
            segment(0xFF51, size + bytes([7, 1, 1]) * 4),
            segment(0xFF52, bytes([1, 0, 0, 1, 0, 0, 2, 2, 0, 1, 0])),
            segment(0xFF5C, bytes([0x40, 0x40])),
            struct.pack(">HHHIBB", 0xFF90, 10, 0, 0, 0, 1),
            b"\xff\x93\xff\xd9",
        ]
    )
