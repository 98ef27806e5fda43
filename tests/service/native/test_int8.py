"""Operators in 8 bits: each copy computes what NumPy computes from the same rounded numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.arrays import Float32Array, Float64Array
from service.inference.reduced.int8 import Int8Layer
from service.inference.reduced.layers import padded
from tests.service.native import int8_graphs
from tests.service.native.test_bf16 import EPSILON, ROUNDING, assert_close, halved, normed, run

pytestmark = pytest.mark.usefixtures("instruction_set")


def answer(layer: Int8Layer, x: Float64Array) -> Float64Array:
    """The layer's sums are of integers, and exact."""
    scaled = x.astype(np.float32) * layer.scale + layer.offset
    rounded = np.clip(np.rint(scaled), 0, 255).astype(np.int64)
    found: Float64Array = (rounded @ layer.weight.astype(np.int64)) * layer.steps.astype(np.float64)
    return found + layer.bias


@pytest.mark.parametrize("shape", [(1, 4, 1), (7, 3, 16), (50, 33, 65), (200, 192, 200)], ids=str)
def test_linear_layers(shape: tuple[int, int, int], tmp_path: Path) -> None:
    rows, width, columns = shape
    case = int8_graphs.linear(rows, width, columns)
    layer = int8_graphs.layer(width, columns, seed=1)
    expected = answer(layer, case.given["x"].astype(np.float64))
    wide = np.pad(expected, ((0, 0), (0, padded(columns) - columns)))
    assert_close(run(case, tmp_path), wide, ROUNDING)


def test_a_number_may_be_the_next_one_after_a_norm_and_no_other(tmp_path: Path) -> None:
    """Sums of a norm differ in their last digits, so a number close to halfway may round down."""
    rows, width, columns = 200, 192, 200
    case = int8_graphs.linear(rows, width, columns, EPSILON)
    layer = int8_graphs.layer(width, columns, seed=1)
    found = run(case, tmp_path)[:, :columns]
    expected = answer(layer, normed(case.given["x"].astype(np.float64)))
    one = np.abs(layer.weight * layer.steps).max()
    np.testing.assert_allclose(found, expected, atol=one + ROUNDING * np.abs(expected).max())
    assert np.median(np.abs(found - expected)) < ROUNDING * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(1, 2, 1), (13, 12, 33), (197, 48, 96), (110, 33, 65)], ids=str)
def test_what_follows_attention_in_a_block(shape: tuple[int, int, int], tmp_path: Path) -> None:
    rows, width, hidden = shape
    case = int8_graphs.rest(rows, width, hidden)
    projection, first, second = int8_graphs.layers_of_the_rest(width, hidden)
    y = case.given["x"] + answer(projection, halved(case.given["attended"]))
    inside = answer(first, normed(y))
    gelu = torch.nn.functional.gelu(torch.tensor(inside)).numpy()
    wide = np.pad(gelu, ((0, 0), (0, padded(hidden) - hidden)))
    expected = y + answer(second, wide)
    found = run(case, tmp_path)
    # A rounded number in the middle may be the next one, as above.
    assert_close(found, expected, 4 / 255)
    assert np.median(np.abs(found - expected)) < 0.01 * np.abs(expected).max()


def test_what_is_beyond_the_range_is_its_end(tmp_path: Path) -> None:
    case = int8_graphs.linear(4, 3, 16)
    layer = int8_graphs.layer(3, 16, seed=1)
    case.given["x"][:] = np.array([[1e30], [-1e30], [np.inf], [0]], np.float32)
    found: Float32Array = run(case, tmp_path)
    assert_close(found, answer(layer, case.given["x"].astype(np.float64)), ROUNDING)
    np.testing.assert_array_equal(found[0], found[2])
