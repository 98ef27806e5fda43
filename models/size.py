"""Height and width: of an input or a patch in pixels, or of a grid in patches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Size(NamedTuple):
    """In JSON a square is one number, and any other size [height, width]."""

    height: int
    width: int

    @classmethod
    def of(cls, value: int | Sequence[int]) -> "Size":
        """From one number for both, or from height and width."""
        return cls(value, value) if isinstance(value, int) else cls(*value)

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def is_square(self) -> bool:
        return self.height == self.width

    @property
    def side(self) -> int:
        """Height and width of a square. Raises `ValueError` for any other size."""
        if not self.is_square:
            raise ValueError(f"{self} is not square")
        return self.height

    @property
    def json(self) -> int | list[int]:
        """As it is written in JSON."""
        return self.height if self.is_square else [*self]

    def __floordiv__(self, other: "Size") -> "Size":
        return Size(self.height // other.height, self.width // other.width)

    def __mod__(self, other: "Size") -> "Size":
        """What is left over in each direction; (0, 0) is a tuple of zeros, not false."""
        return Size(self.height % other.height, self.width % other.width)

    def __str__(self) -> str:
        return f"{self.height} x {self.width}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        length = core_schema.int_schema(gt=0, strict=True)
        pair = core_schema.list_schema(length, min_length=2, max_length=2)
        either = core_schema.union_schema([length, pair])
        return core_schema.no_info_after_validator_function(
            cls.of,
            either,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda size: size.json, return_schema=either
            ),
        )
