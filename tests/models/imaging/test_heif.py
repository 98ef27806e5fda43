"""The sizes in the headers of HEIF files, in every form in which the format can hold them."""

import struct

import pytest

from models.imaging import heif


def box(kind: bytes, *content: bytes) -> bytes:
    whole = b"".join(content)
    return struct.pack(">I", 8 + len(whole)) + kind + whole


def full(kind: bytes, version: int, *content: bytes) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *content)


def derived(kind: bytes, width: int, height: int, wide: bool) -> bytes:
    """The description of a picture that is put together from others."""
    middle = b"\0\1" if kind == b"grid" else bytes(8)  # rows and columns, or a background
    return bytes([0, wide]) + middle + struct.pack(">II" if wide else ">HH", width, height)


def locations(version: int, place: int, offset: int, pieces: int) -> bytes:
    """That item 7 begins so far into the file or the box, after one that is elsewhere."""
    items = [(5, 0, 9, 3), (7, place, offset, pieces)]
    number = "I" if version == 2 else "H"
    content = b"\x44\x40" + struct.pack(f">{number}", len(items))
    for item, where, start, count in items:
        content += struct.pack(f">{number}", item)
        content += struct.pack(">H", where) if version else b""
        content += struct.pack(">HIH", 0, 4, count)  # with a base of 4
        content += struct.pack(">II", start - 4, 100) + bytes(8) * (count - 1)
    return full(b"iloc", version, content)


def meta(
    kind: bytes, version: int, place: int, offset: int, described: bytes, pieces: int = 1
) -> bytes:
    entry = [struct.pack(">H", 7), struct.pack(">I", 7)][version == 2]
    plain = full(b"infe", 2, struct.pack(">HH", 5, 0), b"hvc1")
    item = full(b"infe", 3 if version == 2 else 2, entry, b"\0\0", kind)
    count = struct.pack(">I" if version else ">H", 2)
    sizes = full(b"ispe", 0, struct.pack(">II", 30, 20))
    return full(
        b"meta",
        0,
        box(b"iprp", box(b"ipco", box(b"pixi"), sizes, sizes)),
        full(b"iinf", int(version > 0), count, plain, item),
        locations(version, place, offset, pieces),
        box(b"idat", b"12345678", described),
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("version", "place"), [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("kind", [b"grid", b"iovl"])
def test_what_is_put_together_is_as_large_as_it_is_described(
    kind: bytes, version: int, place: int, wide: bool
) -> None:
    start, described = box(b"ftyp", b"heic"), derived(kind, 40_000, 50_000, wide)
    if place == 1:
        data = start + meta(kind, version, place, 8, described)
    else:
        length = len(start + meta(kind, version, place, 4, b""))
        data = start + meta(kind, version, place, length + 8, b"") + box(b"mdat", described)
    assert heif.sizes(data) == [(30, 20), (30, 20), (40_000, 50_000)]


def test_all_headers_count() -> None:
    """libheif heeds the last."""
    first, last = (
        full(b"meta", 0, box(b"iprp", box(b"ipco", full(b"ispe", 0, struct.pack(">II", *size)))))
        for size in ((30, 20), (50, 40))
    )
    assert heif.sizes(box(b"ftyp") + first + last) == [(30, 20), (50, 40)]


def test_a_box_may_be_long_or_reach_to_the_end() -> None:
    sizes = full(b"ispe", 0, struct.pack(">II", 30, 20))
    content = bytes(4) + box(b"iprp", box(b"ipco", sizes))
    long = struct.pack(">I4sQ", 1, b"meta", 16 + len(content)) + content
    last = struct.pack(">I4s", 0, b"meta") + content
    for data in (long + b"appended", last):
        assert heif.sizes(box(b"ftyp") + data) == [(30, 20)]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I4s", 100, b"meta"),
        struct.pack(">I4s", 3, b"meta"),
        full(b"meta", 0, box(b"iprp", box(b"ipco", full(b"ispe", 0, b"\0\0")))),
        full(b"meta", 0, full(b"iinf", 0, b"\0\1", full(b"infe", 2, b"\0"))),
        box(b"free") * 20_001,
        box(b"ftyp"),
        meta(b"grid", 1, 2, 8, b""),
        meta(b"grid", 1, 0, 8, b"", pieces=2),
        full(b"meta", 0, box(b"iprp"), box(b"iprp")),
    ],
    ids=[
        "beyond the end",
        "before itself",
        "half a size",
        "half an item",
        "too many",
        "none",
        "in another item",
        "in pieces",
        "twice",
    ],
)
def test_damage_and_malice_are_told(data: bytes) -> None:
    with pytest.raises((EOFError, ValueError)):
        heif.sizes(data)
