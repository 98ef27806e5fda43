"""Weights, images and probes behind the stored results of the official DeepViT code.

The stored `.npz` files hold what the official networks answered when given the weights and
images made here.  Nothing of this size needs storing itself: every tensor is drawn from numpy's
legacy generator, whose stream numpy keeps fixed, under a seed taken from the tensor's name.
Beyond those draws only sums, products and square roots of single numbers are used, so the
tensors come out bit for bit the same on every machine, whatever the version of torch.

The scales are chosen to exercise the networks rather than to resemble trained ones.  Attention
is far from uniform, every bias and every running statistic matters, and yet rounding errors are
not amplified on the way through 32 blocks.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NORMS = ("norm", "norm1", "norm2", "bn1", "bn2")

# How much wider than variance-preserving a layer's weights are drawn; its bias widens alike.  What
# is added to the residual stream is small, so that the epsilon of a LayerNorm shows in the results,
# and in the blocks it is smaller still, so that tokens stay as different as they were at first.
_GAINS = {
    "patch_embed.proj": 0.18,
    "conv1": 2.0,
    "conv2": 1.4,
    "attn.proj": 0.018,
    "mlp.fc2": 0.09,
    "head": 0.7,
}
_QUERY_KEY_GAIN = 1.35

# How many places the position embeddings crowd around.
_PLACES = 6

# The scale of what is added to or subtracted from softmax maps: their average entry is 1 / 197
# for images of 224 pixels and 1 / 577 for images of 384.
_MAP_SCALE = 0.003


def _uniform(key: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Draws numbers between -1 and 1 under a seed that depends on `key` only."""
    generator = np.random.RandomState(zlib.crc32(key.encode()))
    return 2.0 * generator.random_sample(tuple(shape)) - 1.0


def _gain(layer: str) -> float:
    return next((gain for name, gain in _GAINS.items() if layer.endswith(name)), 1.0)


def _matrix(layer: str, draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales a linear or convolution weight by the number of inputs of each output."""
    fan_in = math.prod(draw.shape[1:])
    weight: NDArray[np.float64] = draw * (_gain(layer) * math.sqrt(3.0 / fan_in))
    if layer.endswith("qkv"):
        weight[: 2 * len(weight) // 3] *= _QUERY_KEY_GAIN
    return weight


def _positions(key: str, draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Puts every token of [1, N, C] near one of a few places, chosen at random.

    Tokens that share a place share the attention given to it.  Maps can then be far from uniform
    without single entries near 1, whose rounding errors later steps would enlarge.
    """
    _, tokens, channels = draw.shape
    places = _uniform(f"{key}.places", (_PLACES, channels))
    choice = (_PLACES / 2 * (1.0 + _uniform(f"{key}.choice", (tokens,)))).astype(np.int64)
    return 0.5 * places[choice] + 0.04 * draw


def random_tensor(key: str, shape: Sequence[int]) -> Array:
    """Makes the parameter or buffer called `key` in the official naming.

    The result is float32, save for the count of batches that a BatchNorm has seen.
    """
    layer, _, leaf = key.rpartition(".")
    module = layer.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(tuple(shape), np.int64)
    draw = _uniform(key, shape)
    value: NDArray[np.float64]
    if leaf == "pos_embed":
        value = _positions(key, draw)
    elif leaf == "cls_token":
        value = 0.1 * draw
    elif module == "var_norm":
        value = {
            "weight": 1.0 + 0.3 * draw,
            "bias": 0.03 * draw,
            "running_mean": _MAP_SCALE * (1.0 + 0.5 * draw),
            "running_var": 0.04 + 0.02 * draw,
        }[leaf]
    elif module in _NORMS:
        value = {
            "weight": 1.0 + 0.3 * draw,
            "bias": 0.2 * draw,
            "running_mean": 0.3 * draw,
            "running_var": 1.0 + 0.5 * draw,
        }[leaf]
    elif module == "reatten_matrix" and leaf == "weight":
        value = np.eye(len(draw))[:, :, None, None] + 0.3 * draw
    elif module == "reatten_matrix":
        value = _MAP_SCALE * draw
    elif leaf == "bias":
        value = 0.1 * _gain(layer) * draw
    else:
        value = _matrix(layer, draw)
    return value.astype(np.float32)


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Makes every parameter and buffer of a network, given their shapes by official name."""
    return {key: random_tensor(key, shape) for key, shape in shapes.items()}


def _upsample(grid: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Stretches the last axis of `grid` to `size` points by linear interpolation."""
    cells = grid.shape[-1] - 1
    position = np.arange(size) * cells / size
    left = position.astype(np.int64)
    share = position - left
    stretched: NDArray[np.float64] = grid[..., left] * (1.0 - share) + grid[..., left + 1] * share
    return stretched


def random_images(size: int, batch: int = 2) -> NDArray[np.float32]:
    """Makes images [B, 3, S, S] between -1 and 1: smooth blotches of colour under fine noise."""
    coarse = _uniform("images.coarse", (batch, 3, 6, 6))
    smooth = _upsample(np.swapaxes(_upsample(coarse, size), -1, -2), size)
    noise = _uniform("images.noise", (batch, 3, size, size))
    return (0.5 * smooth + 0.5 * noise).astype(np.float32)


def positions(tokens: int) -> tuple[list[int], list[int]]:
    """Chooses the queries and the keys at which maps over `tokens` tokens are stored."""
    last = tokens - 1
    return [0, last // 5, last // 2, last], [0, last // 3, 2 * last // 3, last]


def sample(attention: Array) -> NDArray[np.float32]:
    """Takes 4 by 4 entries of maps [..., N, N], spread from corner to corner."""
    queries, keys = positions(attention.shape[-1])
    entries = attention[..., queries, :][..., keys]
    return entries.astype(np.float32)


def probe(attention: Array) -> NDArray[np.float32]:
    """Reduces maps [..., N, N] to one number each, to which every entry contributes.

    That number is the product of the map with two fixed vectors of length about 1, one over the
    queries and one over the keys.
    """
    tokens = attention.shape[-1]
    left = _uniform("probe.queries", (tokens,)) * math.sqrt(3.0 / tokens)
    right = _uniform("probe.keys", (tokens,)) * math.sqrt(3.0 / tokens)
    product: Array = (attention.astype(np.float64) @ right) @ left
    return product.astype(np.float32)
