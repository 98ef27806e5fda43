"""Forms of images (multipart/form-data, RFC 7578) to the bytes of each."""

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MalformedUpload, TooManyImages

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FILES = (b"image/", b"application/octet-stream")  # content types of parts without a file's name


async def read_form(content_type: str, body: AsyncIterator[bytes], most: int) -> list[bytes]:
    """The parts of a form, in its order.

    Raises `TooManyImages` for more than `most`, or `MalformedUpload`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedUpload("the content type of the form has no boundary")
    form = _Form(most)
    try:
        parser = MultipartParser(boundary, form.callbacks)
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as exc:
        raise MalformedUpload("the form cannot be parsed") from exc
    if not form.ended:
        raise MalformedUpload("the form is cut short: its closing boundary is missing")
    return [bytes(form.parts.popleft()) for _ in range(len(form.parts))]  # never all twice


class _Form:
    """What the parser has met so far."""

    def __init__(self, most: int) -> None:
        self.parts: deque[bytearray] = deque()
        self.ended = False
        self._most = most
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}

    @property
    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_end": self._on_end,
        }

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _on_headers(self) -> None:
        """A part is a file if it has the name of one, or says that it is an image."""
        disposition = parse_options_header(self._headers.get(b"content-disposition"))[1]
        kind = self._headers.get(b"content-type", b"").lower()
        if b"name" not in disposition:
            raise MalformedUpload("a part of the form has no name")
        if b"filename" not in disposition and not kind.startswith(
            (b"image/", b"application/octet-stream")
        ):
            raise MalformedUpload(
                "a part of the form is text, not a file; with curl: -F image=@FILE"
            )
        if len(self.parts) == self._most:
            raise TooManyImages(f"at most {self._most} images in one request")
        self.parts.append(bytearray())

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1] += data[start:end]

    def _on_end(self) -> None:
        self.ended = True
