"""HEIC and HEIF, as phones take pictures: read where the package pillow-heif is installed.

A small picture can be cut out of one that is much larger, or be claimed for a grid of large tiles.
libheif notices only after decoding, so that every size in the headers is compared beforehand.
"""

from collections.abc import Iterator
from typing import NamedTuple

try:
    import pillow_heif
except ModuleNotFoundError:
    FORMATS: tuple[str, ...] = ()
else:
    # One thread each, because several pictures are decoded at once; nothing but the main picture.
    pillow_heif.register_heif_opener(
        thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
    )
    FORMATS = ("HEIF",)

_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis"),
    *(b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1"),  # containers of any coding, AV1 too
)
# Pictures that are put together from others, and where in their description the size begins.
_SIZE_OF_DERIVED = {b"grid": 4, b"iovl": 10}
_MOST_BOXES = 20_000  # beside each other, as libheif allows within others
_ONCE = (b"iprp", b"iinf", b"idat", b"iloc")
_IN_FILE, _IN_META = 0, 1  # where the data of an item can be
START_BYTES = 12  # that `is_heif` needs


def is_heif(start: bytes) -> bool:
    """Whether a file begins like HEIC or HEIF; some of AVIF do too."""
    return start[4:8] == b"ftyp" and start[8:START_BYTES] in _BRANDS


def sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height in pixels of all that decoding may take memory for.

    Raises `EOFError` or `ValueError` for a damaged or a malicious file.
    """
    found = [
        size
        for kind, start, end in _boxes(data, 0, len(data))
        if kind == b"meta"
        for size in _sizes_in(data, start + 4, end)
    ]
    if not found:
        raise EOFError("the headers have no size")
    return found


def _sizes_in(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The sizes in one `meta` box: of every coded item, and of those put together from them."""
    boxes: dict[bytes, tuple[int, int]] = {}
    for kind, inner, last in _boxes(data, start, end):
        if kind in boxes and kind in _ONCE:
            raise ValueError("a box that may be there only once")
        boxes[kind] = inner, last
    for kind, inner, last in _boxes(data, *boxes.get(b"iprp", (0, 0))):
        if kind == b"ipco":
            for name, at, until in _boxes(data, inner, last):
                if name == b"ispe":
                    field = _Fields(data, at + 4, until)
                    yield field.number(4), field.number(4)
    derived = dict(_derived_items(data, *boxes.get(b"iinf", (0, 0))))
    in_meta, _ = boxes.get(b"idat", (0, 0))
    for item in _locations(data, *boxes.get(b"iloc", (0, 0))) if derived else ():
        if kind_of := derived.get(item.id):
            if item.place not in (_IN_FILE, _IN_META) or item.pieces != 1:
                raise ValueError("a description that is not in one place")
            at = item.offset + (in_meta if item.place == _IN_META else 0)
            yield _derived_size(data, at, kind_of)


def _derived_size(data: bytes, start: int, kind: bytes) -> tuple[int, int]:
    large = _Fields(data, start + 1, len(data)).number(1) & 1
    field = _Fields(data, start + _SIZE_OF_DERIVED[kind], len(data))
    bytes_each = 4 if large else 2
    return field.number(bytes_each), field.number(bytes_each)


def _derived_items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Ids and kinds of items in an `iinf` box."""
    if start == end:
        return
    field = _Fields(data, start, end)
    field.skip(2 if field.version() == 0 else 4)  # how many
    for kind, inner, last in _boxes(data, field.at, end):
        if kind == b"infe":
            field = _Fields(data, inner, last)
            version = field.version()
            if version >= 2:
                item = field.number(2 if version == 2 else 4)
                field.skip(2)
                name = field.number(4).to_bytes(4)
                if name in _SIZE_OF_DERIVED:
                    yield item, name


class _Location(NamedTuple):
    id: int
    place: int
    pieces: int
    offset: int  # of the first byte


def _locations(data: bytes, start: int, end: int) -> Iterator[_Location]:
    """Where each item of an `iloc` box begins."""
    if start == end:
        return
    field = _Fields(data, start, end)
    version = field.version()
    widths = field.number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        widths >> shift & 15 for shift in (12, 8, 4, 0)
    )
    wide = 4 if version == 2 else 2
    for _ in range(field.number(wide)):
        item = field.number(wide)
        place = field.number(2) & 15 if version else _IN_FILE
        field.skip(2)
        base = field.number(base_bytes)
        pieces = field.number(2)
        if pieces:
            field.skip(index_bytes if version else 0)
            yield _Location(item, place, pieces, base + field.number(offset_bytes))
            piece_bytes = (index_bytes if version else 0) + offset_bytes + length_bytes
            field.skip(length_bytes + (pieces - 1) * piece_bytes)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box in a part of a file.

    What comes last may have any form: some phones append data of their own.
    """
    count = 0
    while start + 8 <= end:
        if (count := count + 1) > _MOST_BOXES:
            raise ValueError("too many boxes")
        field = _Fields(data, start, end)
        size, kind = field.number(4), field.number(4).to_bytes(4)
        if size == 1:
            size = field.number(8)
        last = min(start + size, end) if size else end
        if last < field.at:
            raise ValueError("a box ends before it begins")
        yield kind, field.at, last
        start = last


class _Fields:
    """Numbers, one after the other, most significant byte first. Raises `EOFError` at the end."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.at = at
        self._data, self._end = data, end

    def number(self, count: int) -> int:
        """Of so many bytes."""
        start = self.at
        self.skip(count)
        return int.from_bytes(self._data[start : self.at])

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self._end:
            raise EOFError("a box ends too early")

    def version(self) -> int:
        """Of a box that has one, with flags behind it."""
        return self.number(4) >> 24
