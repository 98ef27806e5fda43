"""How much work an image can be at the most, as its header says, before anything is decoded."""

import struct
from enum import Enum, auto
from typing import NamedTuple

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_LITTLE_BYTES, _LITTLE_PIXELS = 2 * 2**20, 4 * 10**6
_LITTLE_WEBP_PIXELS = 2 * 10**6  # each takes up to 16 bytes, where others take half of it
_MODERATE_BYTES, _MODERATE_PIXELS = 8 * 2**20, 16 * 10**6
_MAX_SCANS = 20  # of a JPEG; a progressive one usually has some ten
# Pillow parses all that is not pixels in Python.
_MAX_BYTES_BESIDE_PIXELS = 128 * 2**10
_MAX_PARTS = 1000  # segments of a JPEG before its pixels, chunks of a PNG

_SOS = 0xDA  # start of a scan
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames of JPEGs: baseline, extended, progressive
# Chunks of a WebP that is animated, or that may ask for gigabytes of tables for little data: its
# lossless pictures, which transparency is one of.
_COSTLY_CHUNKS = (b"VP8L", b"ALPH", b"ANMF")


class Effort(Enum):
    """How long decoding takes, and how much memory."""

    LITTLE = auto()  # some ten milliseconds, rarely more than 100, and up to 64 MiB
    MODERATE = auto()  # up to about a second
    UNKNOWN = auto()


class _Header(NamedTuple):
    pixels: int
    simple: bool  # decoded in one pass, or in a few


def effort(data: bytes) -> Effort:
    """That of JPEGs, PNGs and WebPs of ordinary structure; of anything else it is unknown."""
    if len(data) > _MODERATE_BYTES:
        return Effort.UNKNOWN
    header = None
    if data.startswith(_JPEG):
        header = _jpeg_header(data)
    elif data.startswith(_PNG):
        header = _png_header(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = _webp_header(data)
    if header is None or not 0 < header.pixels <= _MODERATE_PIXELS:
        return Effort.UNKNOWN
    little = header.simple and header.pixels <= _LITTLE_PIXELS and len(data) <= _LITTLE_BYTES
    return Effort.LITTLE if little else Effort.MODERATE


def _jpeg_header(data: bytes) -> _Header | None:
    """Size and structure of a Huffman-coded JPEG of 8 bits, from the segments before its pixels."""
    at, frame = 2, b""
    for _ in range(_MAX_PARTS):
        if at + 4 > len(data):
            return _Header(1, simple=True)  # it ends before its pixels, so it is refused
        if at > _MAX_BYTES_BESIDE_PIXELS or data[at] != 0xFF:
            return None
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if kind == _SOS:
            break
        if kind in _HUFFMAN:
            frame = data[at + 4 : at + 2 + length]
        at += 2 + length
    else:
        return None
    if len(frame) < 5 or frame[0] != 8 or data.count(bytes([0xFF, _SOS])) > _MAX_SCANS:
        return None
    height, width = struct.unpack_from(">HH", frame, 1)
    return _Header(width * height, simple=True)


def _png_header(data: bytes) -> _Header | None:
    """Size and structure of a PNG that is not animated."""
    at, beside_pixels, pixels, simple = len(_PNG), 0, 0, False
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return _Header(pixels, simple)
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IHDR" and length == 13 and not pixels:
            width, height, bits, _, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, at + 8)
            pixels, simple = width * height, bits <= 8 and not interlaced
        elif name == b"acTL":
            return None
        elif name != b"IDAT":
            beside_pixels += length
        if beside_pixels > _MAX_BYTES_BESIDE_PIXELS:
            return None
        at += 12 + length
    return None


def _webp_header(data: bytes) -> _Header | None:
    """Size and structure of a WebP; no frame of an animation is larger."""
    if len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        case _:
            return None
    pixels = width * height
    costly = pixels > _LITTLE_WEBP_PIXELS or any(name in data for name in _COSTLY_CHUNKS)
    return _Header(pixels, simple=not costly)
