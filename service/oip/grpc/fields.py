"""What a message would take in memory, counted over its bytes before protobuf makes objects of it.

Two bytes are enough for an empty message inside another one, which takes 90 or more as an object.
"""

from collections.abc import Mapping
from functools import lru_cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.errors import InvalidInference, MalformedUpload

MAX_FIELDS = 4096  # 100 outputs with a few parameters each have fewer than 1,000

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types; groups ended with proto2
_MAX_VARINT_BYTES = 10
_BYTES_PER_FIELD = 2  # at least
_BYTES_PER_NUMBER = 8  # at most; in the message, a number may be a single byte
_TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def unpacked_bytes(content: bytes, kind: Descriptor) -> int:
    """The most memory, in bytes, that the strings and numbers of a message of this kind take.

    Reads no further than `MAX_FIELDS` fields, at all depths together. Raises `InvalidInference` if
    there are more, and `MalformedUpload`.
    """
    if len(content) <= _BYTES_PER_FIELD * MAX_FIELDS:
        return _BYTES_PER_NUMBER * len(content)
    fields, size = 0, 0
    waiting = [(0, len(content), kind)]
    while waiting:
        at, end, kind = waiting.pop()
        messages, numbers = _fields_of(kind)
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise InvalidInference(
                    f"the message has more than {MAX_FIELDS:,} fields; numbers must be packed"
                )
            tag, at = _varint(content, at)
            number, wire_type = tag >> 3, tag & 7
            length = 0
            if wire_type == _VARINT:
                _, at = _varint(content, at)
            elif wire_type == _LENGTH:
                length, at = _varint(content, at)
                if number in messages:
                    waiting.append((at, at + length, messages[number]))
                else:
                    size += length * (_BYTES_PER_NUMBER if number in numbers else 1)
            elif wire_type in (_FIXED64, _FIXED32):
                length = 8 if wire_type == _FIXED64 else 4
            else:
                raise _malformed()
            at += length
        if at > end:
            raise _malformed()
    return size


@lru_cache
def _fields_of(kind: Descriptor) -> tuple[Mapping[int, Descriptor], frozenset[int]]:
    """By their numbers: the fields that are messages, and those that may be packed numbers."""
    messages = {field.number: field.message_type for field in kind.fields if field.message_type}
    numbers = (
        field.number for field in kind.fields if not field.message_type and field.type not in _TEXT
    )
    return messages, frozenset(numbers)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that starts there, and where the next thing starts."""
    value = 0
    for index, byte in enumerate(content[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise _malformed()


def _malformed() -> MalformedUpload:
    return MalformedUpload("this is not the message that the method takes")
