"""Weights for the kernels in bfloat16: rounded to the nearest, and where kernels look for them."""

import numpy as np
import pytest
import torch

from service.inference.reduced.layers import Array, Bf16Layer, convolution, in_large_pages, to_bf16

RANDOM = np.random.default_rng(0)


def test_numbers_round_as_pytorch_rounds_them() -> None:
    """Ties to even among them: those that lie halfway between two."""
    values = RANDOM.standard_normal(10_000, dtype=np.float32) * 10.0 ** RANDOM.integers(
        -30, 30, 10_000
    )
    halfway = (RANDOM.integers(0, 2**15, 1000, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    ends = np.array([0.0, -0.0, np.inf, -np.inf], np.float32)
    values = np.concatenate([values, halfway[np.isfinite(halfway)], ends])
    expected = torch.tensor(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bf16(values), expected)


@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (5, 70), (1, 1), (96, 128)])
def test_pairs_lie_in_panels(rows: int, columns: int) -> None:
    weight = RANDOM.standard_normal((rows, columns), dtype=np.float32)
    packed, bias = Bf16Layer(weight, np.ones(columns, np.float32)).packed().values()
    wide = -(-columns // 16) * 16
    assert packed.shape == (-(-rows // 2), wide)
    flat, rounded = packed.ravel(), to_bf16(weight)
    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)]:
        first = column // 64 * 64  # of the panel, before which all columns are whole panels
        width = min(64, wide - first)
        pair = flat[first * len(packed) + row // 2 * width + column - first]
        assert (pair >> 16 * (row % 2)) & 0xFFFF == rounded[row, column]
    assert np.count_nonzero(flat) == np.count_nonzero(
        np.add.reduceat(rounded != 0, range(0, rows, 2))
    )
    np.testing.assert_array_equal(bias, [1] * columns + [0] * (wide - columns))


def test_heads_of_odd_width_are_padded_between_a_layer_and_the_next() -> None:
    heads, width = 3, 5
    before = Bf16Layer(RANDOM.random((4, heads * width), np.float32), RANDOM.random(15, np.float32))
    behind = Bf16Layer(RANDOM.random((heads * width, 7), np.float32), RANDOM.random(7, np.float32))
    x = RANDOM.random((2, 4), np.float32)
    expected = (x @ before.weight + before.bias) @ behind.weight
    wide, deep = before.with_even_columns(heads), behind.with_even_rows(heads)
    assert wide.weight.shape == (4, heads * 6)
    np.testing.assert_allclose((x @ wide.weight + wide.bias) @ deep.weight, expected, rtol=1e-5)
    even = Bf16Layer(before.weight[:, :12], before.bias[:12])
    assert even.with_even_columns(heads).weight.shape == (4, 12)


def test_a_convolution_is_a_layer_of_the_rows_of_its_window() -> None:
    weight, bias = RANDOM.random((5, 3, 7, 7), np.float32), RANDOM.random(5, np.float32)
    made = convolution(weight, bias, channels=4)
    assert made.weight.shape == (7 * 28, 5)
    window = RANDOM.random((7, 7, 4), np.float32)
    expected = np.einsum("yxi,oiyx->o", window[..., :3], weight)
    np.testing.assert_allclose(window.reshape(-1) @ made.weight, expected, rtol=1e-5)
    odd = convolution(weight, bias, channels=3).weight.reshape(7, 22, 5)
    assert not odd[:, 21].any()


def test_large_pages_hold_the_same_and_can_be_aligned_reads() -> None:
    arrays: dict[str, Array] = {
        "a": RANDOM.integers(0, 2**32, (3, 5), dtype=np.uint32),
        "b": RANDOM.random(7, np.float32),
        "c": RANDOM.integers(0, 2**32, (1000, 1024), dtype=np.uint32),
    }
    copies = in_large_pages(arrays)
    for name, array in arrays.items():
        assert copies[name].dtype == array.dtype
        np.testing.assert_array_equal(copies[name], array)
        assert copies[name].ctypes.data % 64 == 0
