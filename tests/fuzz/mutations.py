"""Changes to bytes as a fuzzer makes them: bits, lengths, pieces cut out, doubled and spliced."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

_NUMBERS = (
    *(0, 1, 2, 7, 8, 15, 16, 127, 128, 255, 256, 1000),
    *(2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1),
)
_FORMS = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_PNG = b"\x89PNG\r\n\x1a\n"


def mutated(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """With one to eight changes; pieces are taken from `others` too."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4, 8))):
        if changed:
            chance.choice(_CHANGES)(chance, changed, others)
    if changed.startswith(_PNG) and chance.random() < 0.7:
        _renew_checksums(changed)
    return bytes(changed)


def _flip(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _write_number(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """As a length or a count, in either order of bytes; most headers come first."""
    form = chance.choice(_FORMS)
    size = struct.calcsize(form)
    end = min(len(data), 200) if chance.random() < 0.7 else len(data)
    at = chance.randrange(max(1, end - size + 1))
    if at + size > len(data):
        return
    limit = 256**size
    (old,) = struct.unpack_from(form, data, at)
    number = chance.choice((*_NUMBERS, old + 1, old - 1, old * 2, old // 2, limit - 1))
    struct.pack_into(form, data, at, number % limit)


def _piece(chance: random.Random, data: bytes | bytearray) -> bytes:
    start = chance.randrange(len(data))
    length = chance.choice((1, 2, 4, 12, 64, len(data)))
    return bytes(data[start : start + chance.randint(1, length)])


def _delete(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = chance.randrange(len(data))
    del data[start : start + len(_piece(chance, data))]


def _double(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    piece = _piece(chance, data)
    times = chance.choice((1, 1, 2, 16)) if len(piece) < 1000 else 1
    at = chance.randint(0, len(data))
    data[at:at] = piece * times


def _splice(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    if other:
        at = chance.randint(0, len(data))
        piece = _piece(chance, other)
        data[at : at + chance.choice((0, len(piece)))] = piece


def _cut(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[chance.randint(0, len(data)) :]


def _renew_checksums(png: bytearray) -> None:
    """Of its chunks, or a reader would look at none that has been changed."""
    at = len(_PNG)
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        end = at + 8 + length
        if end + 4 > len(png):
            return
        struct.pack_into(">I", png, end, zlib.crc32(png[at + 4 : end]))
        at = end + 4


_Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]
_CHANGES: list[_Change] = [_flip, _flip, _write_number, _write_number, _write_number]
_CHANGES += [_delete, _double, _splice, _splice, _cut]
