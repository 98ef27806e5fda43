"""Weights as the kernels for bfloat16 want them (service/native/bf16_product.h)."""

import mmap
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.arrays import Float32Array

_PANEL = 64  # columns of weights that lie together
_STEP = 16  # columns are padded to a multiple of it
_ALIGNMENT = 64  # bytes, of a line of the cache

Array = Float32Array | npt.NDArray[np.uint32]


class Layer(NamedTuple):
    """Weights [in, out] and bias [out]."""

    weight: Float32Array
    bias: Float32Array

    def packed(self) -> tuple[Array, Array]:
        """Weights as pairs [in / 2, out], and the bias, both padded.

        A pair is two neighbours along the axis that is summed, the first one in the low half. Pairs
        lie in panels of 64 columns, one after the other, which the shape does not show.
        """
        rows, columns = self.weight.shape
        wide = padded_columns(columns)
        padding = wide - columns
        bits = to_bf16(np.pad(self.weight, ((0, rows % 2), (0, padding)))).astype(np.uint32)
        pairs = bits[::2] | bits[1::2] << 16
        panels = [pairs[:, start : start + _PANEL].ravel() for start in range(0, wide, _PANEL)]
        bias = np.pad(self.bias, (0, padding)).astype(np.float32)
        return np.concatenate(panels).reshape(pairs.shape), bias

    def with_even_columns(self, heads: int) -> "Layer":
        """The columns of each head padded with zeros to an even number."""
        weight = self.weight.reshape(len(self.weight), heads, -1)
        bias = self.bias.reshape(heads, -1)
        odd = bias.shape[1] % 2
        weight = np.pad(weight, ((0, 0), (0, 0), (0, odd)))
        return Layer(weight.reshape(len(weight), -1), np.pad(bias, ((0, 0), (0, odd))).ravel())

    def with_even_rows(self, heads: int) -> "Layer":
        """The same for a layer that takes the heads' columns."""
        weight = self.weight.reshape(heads, -1, self.weight.shape[1])
        weight = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2), (0, 0)))
        return Layer(weight.reshape(-1, weight.shape[2]), self.bias)

    def behind(self, layer: "Layer") -> "Layer":
        """The rows padded with zeros to as many as the padded columns of the layer before."""
        padding = padded_columns(len(layer.bias)) - len(self.weight)
        return Layer(np.pad(self.weight, ((0, padding), (0, 0))), self.bias)


def convolution(weight: Float32Array, bias: Float32Array, channels: int) -> Layer:
    """A convolution [out, in, window, window] as a layer, whose input has so many channels.

    The layer's rows are a window's rows, each padded to an even number.
    """
    out, inside, window, _ = weight.shape
    padded = np.pad(weight, ((0, 0), (0, channels - inside), (0, 0), (0, 0)))
    lines = padded.transpose(2, 3, 1, 0).reshape(window, window * channels, out)
    lines = np.pad(lines, ((0, 0), (0, window * channels % 2), (0, 0)))
    return Layer(lines.reshape(-1, out), bias)


def padded_columns(columns: int) -> int:
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
