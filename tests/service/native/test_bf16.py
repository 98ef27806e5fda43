"""Operators in bfloat16: each copy computes what NumPy computes from the same rounded numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.arrays import Float32Array, Float64Array
from service.inference.reduced.layers import convolution, padded, to_bf16
from tests.service.native import bf16_graphs
from tests.service.native.graphs import Case, save
from tests.support.operators import session

pytestmark = pytest.mark.usefixtures("instruction_set")

ROUNDING = 2.0**-8  # the largest relative error of a number that is rounded to bfloat16
EPSILON = 1e-6


def run(case: Case, folder: Path) -> Float32Array:
    save({"case": case}, folder)
    (found,) = session((folder / "case.onnx").read_bytes()).run(None, case.given)
    return np.asarray(found)


def halved(values: Float32Array | Float64Array) -> Float64Array:
    """The nearest numbers of bfloat16."""
    bits = to_bf16(values.astype(np.float32)).astype(np.uint32) << 16
    return np.array(bits.view(np.float32), np.float64)


def normed(x: Float64Array) -> Float64Array:
    found: Float64Array = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + EPSILON
    )
    return found


def assert_close(found: Float32Array, expected: Float64Array, tolerance: float) -> None:
    """Relative to the largest number."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("epsilon", [-1.0, EPSILON], ids=["as it is", "normed"])
@pytest.mark.parametrize("shape", [(1, 4, 1), (7, 3, 16), (50, 33, 65), (200, 192, 200)], ids=str)
def test_linear_layers(shape: tuple[int, int, int], epsilon: float, tmp_path: Path) -> None:
    rows, width, columns = shape
    case = bf16_graphs.linear(rows, width, columns, epsilon)
    layer = bf16_graphs.layer(width, columns, seed=1)
    x = case.given["x"].astype(np.float64)
    expected = halved(normed(x) if epsilon > 0 else x) @ halved(layer.weight) + layer.bias
    wide = np.pad(expected, ((0, 0), (0, padded(columns) - columns)))
    assert_close(run(case, tmp_path), wide, ROUNDING)


@pytest.mark.parametrize("shape", [(1, 2, 1), (13, 12, 33), (197, 48, 96), (110, 33, 65)], ids=str)
def test_what_follows_attention_in_a_block(shape: tuple[int, int, int], tmp_path: Path) -> None:
    rows, width, hidden = shape
    case = bf16_graphs.rest(rows, width, hidden)
    even = width + width % 2
    projection, first = bf16_graphs.layer(even, width, 1), bf16_graphs.layer(width, hidden, 2)
    second = bf16_graphs.layer(hidden, width, 3)
    y = case.given["x"] + halved(case.given["attended"]) @ halved(projection.weight)
    y = y + projection.bias
    inside = halved(normed(y)) @ halved(first.weight) + first.bias
    gelu = torch.nn.functional.gelu(torch.tensor(inside)).numpy()
    expected = y + halved(gelu) @ halved(second.weight) + second.bias
    # A rounded number in the middle may be the next one, as sums differ in their last digits.
    assert_close(run(case, tmp_path), expected, ROUNDING)


@pytest.mark.parametrize("mixes", [True, False], ids=["mixed", "plain"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 2),
        (3, 17, 17, 3, 16),
        (1, 33, 50, 13, 6),
        (5, 1, 65, 6, 34),
        (2, 50, 50, 6, 32),
    ],
    ids=str,
)
def test_attention(shape: tuple[int, int, int, int, int], mixes: bool, tmp_path: Path) -> None:
    images, queries, keys, heads, width = shape
    case = bf16_graphs.attention(shape, mixes)
    q, k, v = (
        halved(case.given[name]).reshape(images, tokens, heads, width).transpose(0, 2, 1, 3)
        for name, tokens in (("q", queries), ("k", keys), ("v", keys))
    )
    powers = np.exp2(q @ k.transpose(0, 1, 3, 2))
    maps = powers / powers.sum(-1, keepdims=True)
    if mixes:
        theta, offset = case.given["theta"], case.given["offset"]
        maps = np.einsum("gh,bhmn->bgmn", theta, maps) + offset[:, None, None]
    expected = (maps @ v).transpose(0, 2, 1, 3).reshape(images * queries, heads * width)
    assert_close(run(case, tmp_path), expected, 2 * ROUNDING)  # products are of rounded maps


def test_maps_close_to_uniform_lose_nothing_when_they_are_mixed(tmp_path: Path) -> None:
    """A norm over maps magnifies how far they are from uniform, which rounding must not swallow."""
    images, tokens, heads, width = 1, 64, 4, 16
    case = bf16_graphs.attention((images, tokens, tokens, heads, width), mixes=True)
    case.given["q"] *= 0.01
    gain = 2000.0
    theta = (gain * np.eye(heads)).astype(np.float32)
    offset = np.full(heads, -gain / tokens, np.float32)
    case.given.update(theta=theta, offset=offset)
    q, k, v = (
        halved(case.given[name]).reshape(tokens, heads, width).transpose(1, 0, 2) for name in "qkv"
    )
    powers = np.exp2(q @ k.transpose(0, 2, 1))
    maps = gain * (powers / powers.sum(-1, keepdims=True) - 1 / tokens)
    expected = (maps @ v).transpose(1, 0, 2).reshape(tokens, heads * width)
    assert_close(run(case, tmp_path), expected, ROUNDING)


@pytest.mark.parametrize("no_number", [np.nan, np.inf])
def test_what_is_no_number_reaches_all_of_a_query_and_no_other(
    no_number: float, tmp_path: Path
) -> None:
    shape = (1, 20, 20, 3, 4)
    case = bf16_graphs.attention(shape, mixes=True)
    case.given["q"][7, 5] = no_number
    found = run(case, tmp_path)
    assert np.isnan(found[7]).all()
    assert np.isfinite(np.delete(found, 7, axis=0)).all()


@pytest.mark.parametrize(
    ("images", "size", "channels", "features"),
    [(1, 9, 1, 1), (2, 33, 3, 70), (3, 16, 4, 16), (1, 130, 3, 24)],
)
def test_stems(images: int, size: int, channels: int, features: int, tmp_path: Path) -> None:
    case = bf16_graphs.stem(images, size, channels, features)
    pixels = case.given["images"].astype(np.float64) - case.given["offset"]
    x = torch.tensor(halved(pixels).transpose(0, 3, 1, 2))
    facts = case.attributes
    for number, (window, into, out) in enumerate(bf16_graphs.stem_shapes(channels, features)):
        weight = halved(bf16_graphs.numbers((out, into, window, window), number + 2))
        bias = bf16_graphs.numbers((out,), 9).astype(np.float64)
        x = torch.nn.functional.conv2d(
            x,
            torch.tensor(weight),
            torch.tensor(bias),
            stride=facts["strides"][number],
            padding=facts["paddings"][number],
        )
        if number < 2:
            x = torch.tensor(halved(x.relu().numpy()))
    expected = x.flatten(2).transpose(1, 2).numpy()
    assert_close(run(case, tmp_path), expected, ROUNDING / 2)


def test_gelu_is_as_exact_as_it_says(tmp_path: Path) -> None:
    """Through a hidden layer of one number for each row, and no more than its rounding."""
    rows = 4001
    case = bf16_graphs.rest(rows, 2, 1)
    zero = np.zeros_like
    given = case.given
    x = np.linspace(-12, 12, rows, dtype=np.float32)
    # The norm of (1, -1) is itself: the hidden number is the bias, which differs between runs only.
    given["attended"], given["x"] = (
        zero(given["attended"]),
        np.tile([1, -1], (rows, 1)).astype("f4"),
    )
    found = []
    for value in x[:: rows // 40]:
        layers = [zero(given[f"panels{at}"]) for at in range(2)]
        one = convolution(np.ones((2, 16, 1, 1), np.float32), np.zeros(2, np.float32), 16).packed()
        given |= {
            "panels0": layers[0],
            "panels1": layers[1],
            "panels2": one["panels"],
            "bias2": one["bias"],
        }
        bias = zero(given["bias1"])
        bias[0] = value
        given |= {"bias0": zero(given["bias0"]), "bias1": bias}
        found.append(run(case, tmp_path)[0, 0] - 1)
    values = torch.tensor(x[:: rows // 40].astype(np.float64))
    expected = torch.nn.functional.gelu(values).numpy()
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=7e-5)
