"""Weights and images behind the stored results of other code bases.

Every tensor is drawn from numpy's frozen legacy generator, under a seed taken from its name
in its own code base, so that files hold results and shapes only.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _uniform(key: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Numbers between -1 and 1."""
    generator = np.random.RandomState(zlib.crc32(key.encode()))
    return 2.0 * generator.random_sample(tuple(shape)) - 1.0


def random_tensor(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The tensor of this name: norms off the identity, no bias and no scale left trivial."""
    draw = _uniform(key, shape)
    value: Array
    if "token" in key or "pos" in key:
        value = 0.7 * draw
    elif key.endswith("bias"):
        value = 0.2 * draw
    elif len(shape) == 1:  # gains of norms and of LayerScale
        value = 1.0 + 0.4 * draw
    else:
        value = draw * (1.5 * math.sqrt(3.0 / math.prod(shape[1:])))
    return np.asarray(value, dtype=np.float32)


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    return {key: random_tensor(key, shape) for key, shape in shapes.items()}


def random_images(size: Sequence[int], batch: int = 2) -> NDArray[np.float32]:
    """[B, 3, height, width] between -1 and 1."""
    height, width = size
    seed = f"images.{height}" if height == width else f"images.{height}x{width}"
    return _uniform(seed, (batch, 3, height, width)).astype(np.float32)


def text_embeddings(width: int) -> NDArray[np.float32]:
    """Of seven captions, [7, D]."""
    return random_tensor("text_embeddings", (7, width))
