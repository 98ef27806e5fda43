"""Linear layers and convolutions as the kernels want them (service/native/reduced_product.h)."""

import mmap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from models.arrays import Float32Array

_PANEL = 64  # columns of weights that lie together
_STEP = 16  # columns are padded to a multiple of it
_ALIGNMENT = 64  # bytes, of a line of the cache

Array = Float32Array | npt.NDArray[np.uint32]


class Layer(Protocol):
    """A linear layer, which can be changed and packed."""

    precision: ClassVar[str]  # as operators are named

    @property
    def columns(self) -> int: ...

    def packed(self) -> dict[str, Array]:
        """What the kernels take, by its name, in order."""

    def times(self, factor: np.float32) -> Self: ...

    def beside(self, others: Sequence[Self]) -> Self:
        """One layer of all columns; the input is the same."""

    def with_even_columns(self, heads: int) -> Self:
        """The columns of each head padded with zeros to an even number."""

    def with_even_rows(self, heads: int) -> Self:
        """The same for a layer that takes the heads' columns."""

    def with_rows(self, rows: int) -> Self:
        """The rows padded with zeros to so many."""


@dataclass(frozen=True)
class Bf16Layer:
    """Weights [in, out] and bias [out]."""

    precision: ClassVar[str] = "Bf16"

    weight: Float32Array
    bias: Float32Array

    def packed(self) -> dict[str, Array]:
        """Weights as pairs [in / 2, out], and the bias, both padded with zeros.

        A pair is two neighbours along the axis that is summed, the first one in the low half.
        """
        rows, columns = self.weight.shape
        beside = padded(columns) - columns
        bits = to_bf16(np.pad(self.weight, ((0, rows % 2), (0, beside)))).astype(np.uint32)
        bias = np.pad(self.bias, (0, beside)).astype(np.float32)
        return {"panels": in_panels(bits[::2] | bits[1::2] << np.uint32(16)), "bias": bias}

    def times(self, factor: np.float32) -> "Bf16Layer":
        return Bf16Layer(self.weight * factor, self.bias * factor)

    def beside(self, others: "Sequence[Bf16Layer]") -> "Bf16Layer":
        layers = (self, *others)
        return Bf16Layer(
            np.concatenate([one.weight for one in layers], axis=1),
            np.concatenate([one.bias for one in layers]),
        )

    def with_even_columns(self, heads: int) -> "Bf16Layer":
        return Bf16Layer(even(self.weight, heads), even(self.bias, heads))

    def with_even_rows(self, heads: int) -> "Bf16Layer":
        return Bf16Layer(even(self.weight.T, heads).T, self.bias)

    def with_rows(self, rows: int) -> "Bf16Layer":
        return Bf16Layer(np.pad(self.weight, ((0, rows - len(self.weight)), (0, 0))), self.bias)

    @property
    def columns(self) -> int:
        return len(self.bias)


def in_panels(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Words [in, out] in panels of 64 columns, one behind the other, which the shape hides."""
    columns = range(0, words.shape[1], _PANEL)
    panels = [words[:, start : start + _PANEL].ravel() for start in columns]
    return np.concatenate(panels).reshape(words.shape)


def even(values: Any, heads: int) -> Any:
    """The last axis with each head's numbers padded with a zero to an even number."""
    split = values.reshape(*values.shape[:-1], heads, -1)
    padding = [(0, 0)] * (split.ndim - 1) + [(0, split.shape[-1] % 2)]
    return np.pad(split, padding).reshape(*values.shape[:-1], -1)


def convolution(weight: Float32Array, bias: Float32Array, channels: int) -> Bf16Layer:
    """A convolution [out, in, window, window] as a layer, whose input has so many channels.

    The layer's rows are a window's rows, each padded to an even number.
    """
    out, inside, window, _ = weight.shape
    padded = np.pad(weight, ((0, 0), (0, channels - inside), (0, 0), (0, 0)))
    lines = padded.transpose(2, 3, 1, 0).reshape(window, window * channels, out)
    lines = np.pad(lines, ((0, 0), (0, window * channels % 2), (0, 0)))
    return Bf16Layer(lines.reshape(-1, out), bias)


def padded(columns: int) -> int:
    """As many as a layer's output has, whose last ones are zeros."""
    return -(-columns // _STEP) * _STEP


def to_bf16(values: Float32Array) -> npt.NDArray[np.uint16]:
    """The nearest numbers of bfloat16, as their bits; of two, the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def in_large_pages(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of arrays, side by side in memory of large pages where the system has them.

    A product reads weights faster than a processor finds their small pages.
    """
    sizes = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays.values()]
    memory = mmap.mmap(-1, sum(sizes), access=mmap.ACCESS_COPY)  # of this process alone
    with suppress(AttributeError, OSError):  # other systems, and kernels without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    copies: dict[str, Array] = {}
    start = 0
    for (name, array), size in zip(arrays.items(), sizes, strict=True):
        copy: Array = np.ndarray(array.shape, array.dtype, memory, start)
        np.copyto(copy, array)
        copies[name] = copy
        start += size
    return copies
