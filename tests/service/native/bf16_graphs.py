"""Graphs of one operator in bfloat16 each: sound ones, and such as only an attacker writes.

Numbers are given in float32; those that an operator takes in bfloat16 are cast, and results back.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from service.inference.reduced.layers import Bf16Layer, convolution, padded
from tests.service.native.graphs import Arrays, Case

# Rows, width, and columns or the width of the hidden layer: parts of tiles, panels and words are
# left over.
LINEAR_SHAPES = [(1, 1, 1), (7, 3, 16), (50, 33, 65), (200, 192, 200)]
REST_SHAPES = [(1, 1, 1), (13, 12, 33), (197, 48, 96)]
_REFUSED = "weights do not fit"


def sound() -> dict[str, Case]:
    """Shapes that leave parts of tiles, panels, vectors and pairs over."""
    cases = {}
    for rows, width, columns in LINEAR_SHAPES:
        name = f"{rows}-{width}-{columns}"
        cases[f"linear-{name}"] = linear(rows, width, columns)
        cases[f"normed-{name}"] = linear(rows, width, columns, epsilon=1e-6)
    for rows, width, hidden in REST_SHAPES:
        cases[f"rest-{rows}-{width}-{hidden}"] = rest(rows, width, hidden)
    for shape in [(1, 1, 1, 1, 2), (3, 17, 17, 3, 16), (1, 33, 50, 13, 6), (5, 1, 65, 6, 34)]:
        for mixes in (False, True):
            name = "-".join(map(str, shape)) + "-mixed" * mixes
            cases[f"attention-{name}"] = attention(shape, mixes)
    for images, size, channels, features in [(1, 9, 1, 1), (2, 33, 3, 70), (3, 16, 4, 16)]:
        cases[f"stem-{images}-{size}-{channels}-{features}"] = stem(
            images, size, channels, features
        )
    cases["no-rows"] = linear(0, 3, 16)
    cases["no-images"] = stem(0, 16, 3, 16)
    cases["nothing-attended"] = attention((0, 5, 5, 2, 4), True)
    return cases


def hostile() -> dict[str, Case]:
    return {
        "bf16-" + re.sub(r"[^\w-]+", "_", name): case  # lines are read up to blanks
        for name, case in [*_of_layers(), *_of_attention(), *_of_stems(), *_of_threads()]
    }


def _of_threads() -> Iterator[tuple[str, Case]]:
    for threads in (0, -1, 2**62):
        plain = linear(7, 3, 16)
        changed = plain.attributes | {"threads": threads}
        yield f"threads-{threads}", plain._replace(attributes=changed, becomes="threads")
    many = plain.attributes | {"threads": 1000}
    yield "more-threads-than-rows", plain._replace(attributes=many)


def _of_layers() -> Iterator[tuple[str, Case]]:
    plain, after = linear(7, 3, 16), rest(7, 4, 32)
    zeros = np.zeros
    for shape in [(), (32,), (1, 16), (3, 16), (2, 32), (1, 2, 16)]:
        given = plain.given | {"panels": zeros(shape, np.uint32)}
        yield f"panels-{shape}", plain._replace(given=given, becomes=_REFUSED)
    for shape in [(), (15,), (17,), (1, 16), (0,)]:
        given = plain.given | {"bias": zeros(shape, np.float32)}
        yield f"bias-{shape}", plain._replace(given=given, becomes=_REFUSED)
    narrow = {"panels": zeros((2, 8), np.uint32), "bias": zeros(8, np.float32)}
    yield "unpadded", plain._replace(given=plain.given | narrow, becomes=_REFUSED)
    for shape in [(), (7,), (7, 1, 3)]:
        given = plain.given | {"x": zeros(shape, np.float32)}
        yield f"x-{shape}", plain._replace(given=given, becomes="rows")
    for name, shape in [("attended", (6, 4)), ("attended", (7, 5)), ("x", (6, 4)), ("x", (7,))]:
        given = after.given | {name: zeros(shape, np.float32)}
        yield f"{name}-{shape}-of-the-rest", after._replace(given=given, becomes="do not fit")
    negative = after.attributes | {"epsilon": -1.0}
    yield "rest-without-a-norm", after._replace(attributes=negative, becomes="do not fit")
    wide = Bf16Layer(np.zeros((32, 20), np.float32), np.zeros(20, np.float32)).packed()
    given = after.given | {f"{part}2": array for part, array in wide.items()}
    yield "another-width", after._replace(given=given, becomes="do not return")


def _of_attention() -> Iterator[tuple[str, Case]]:
    plain = attention((2, 5, 5, 2, 4), True)
    odd = {"queries": [-1, 5, 2, 3], "keys": [-1, 5, 2, 3]}
    yield "odd-width", plain._replace(attributes=plain.attributes | odd, becomes="even")
    for columns in [[0, 0], [0, 0, -1], [0, 0, 2**62], [0, 0, 1], [8, 0, 0]]:
        changed = plain.attributes | {"columns": columns}
        written = "-".join(map(str, columns))
        becomes = (
            "fit" if max(columns) < 9 and min(columns) >= 0 and len(columns) == 3 else "columns"
        )
        yield f"columns-{written}", plain._replace(attributes=changed, becomes=becomes)
    for name in "qkv":
        for shape in [(), (80,), (9, 8), (10, 7), (0, 8)]:
            given = plain.given | {name: np.zeros(shape, np.float32)}
            yield f"{name}-{shape}", plain._replace(given=given, becomes="fit")
    given = plain.given | {"theta": np.zeros((2, 3), np.float32)}
    yield "theta", plain._replace(given=given, becomes="fit")


def _of_stems() -> Iterator[tuple[str, Case]]:
    plain = stem(2, 16, 3, 16)
    for name, values, becomes in [
        ("windows", [3, 3], "three"),
        ("windows", [3, 0, 2], "three"),
        ("windows", [3, 2**40, 2], "three"),
        ("windows", [3, 5, 2], _REFUSED),
        ("strides", [2, 0, 2], "three"),
        ("strides", [2, -1, 2], "three"),
        ("paddings", [-1, 1, 0], "three"),
        ("paddings", [1, 2**20, 0], "three"),
        ("features", 0, "features"),
        ("features", 17, "features"),
    ]:
        changed = plain.attributes | {name: values}
        yield f"{name}-{values}", plain._replace(attributes=changed, becomes=becomes)
    shapes: list[tuple[Sequence[int], str]] = [
        ((2, 1, 1, 3), "smaller"),
        ((2, 0, 16, 3), "smaller"),
        ((16, 16, 3), "as many as"),
        ((2, 16, 16, 4), "as many as"),
        ((2, 16, 16, 0), "as many as"),
    ]
    for shape, becomes in shapes:
        given = plain.given | {"images": np.zeros(shape, np.uint8)}
        yield f"images-{shape}", plain._replace(given=given, becomes=becomes)
    five: Arrays = {"images": np.zeros((1, 16, 16, 5), np.uint8), "offset": np.zeros(5, np.float32)}
    yield "five-channels", plain._replace(given=plain.given | five, becomes="as many as")


def linear(rows: int, width: int, columns: int, epsilon: float = -1.0) -> Case:
    given: Arrays = {"x": numbers((rows, width)), **layer(width, columns, seed=1).packed()}
    facts = {"epsilon": epsilon, "threads": 2}
    return Case("Bf16Linear", list(given), ["out"], facts, given)


def rest(rows: int, width: int, hidden: int) -> Case:
    """As wide heads as there are columns, made even."""
    even = width + width % 2
    layers = [layer(even, width, 1), layer(width, hidden, 2)]
    layers.append(layer(hidden, width, 3).with_rows(padded(hidden)))
    given: Arrays = {"attended": numbers((rows, even), 4), "x": numbers((rows, width), 5)}
    for number, one in enumerate(layers):
        given |= {f"{part}{number}": array for part, array in one.packed().items()}
    facts = {"epsilon": 1e-6, "threads": 2}
    return Case("Bf16Rest", list(given), ["out"], facts, given, halves=("attended",))


def attention(shape: tuple[int, int, int, int, int], mixes: bool) -> Case:
    """Images, queries, keys, heads, width."""
    images, queries, keys, heads, width = shape
    given: Arrays = {
        "q": numbers((images * queries, heads * width), 1),
        "k": numbers((images * keys, heads * width), 2),
        "v": numbers((images * keys, heads * width), 3),
    }
    if mixes:
        given |= {"theta": numbers((heads, heads), 4), "offset": numbers((heads,), 5)}
    facts = {
        "queries": [-1, queries, heads, width],
        "keys": [-1, keys, heads, width],
        "columns": [0, 0, 0],
        "threads": 2,
    }
    name = "Bf16ReAttention" if mixes else "Bf16Attention"
    return Case(name, list(given), ["out"], facts, given, halves=("q", "k", "v"))


def stem(images: int, size: int, channels: int, features: int) -> Case:
    """Windows of 3, 3 and 2, which move by 2, 1 and 2."""
    random = np.random.default_rng(0)
    given: Arrays = {
        "images": random.integers(0, 256, (images, size, size, channels), dtype=np.uint8),
        "offset": numbers((channels,), 1) * 100,
    }
    for number, (window, into, out) in enumerate(stem_shapes(channels, features)):
        weight, bias = numbers((out, into, window, window), number + 2), numbers((out,), 9)
        packed = convolution(weight, bias, channels if number == 0 else padded(into))
        given |= {f"{part}{number}": array for part, array in packed.packed().items()}
    facts: dict[str, Any] = {"windows": [3, 3, 2], "strides": [2, 1, 2], "paddings": [1, 1, 0]}
    facts |= {"features": features, "threads": 2}
    return Case("Bf16Stem", list(given), ["out"], facts, given)


def stem_shapes(channels: int, features: int) -> list[tuple[int, int, int]]:
    """Window, channels in and out of each convolution of `stem`."""
    return [(3, channels, 20), (3, 20, 64), (2, 64, features)]


def layer(width: int, columns: int, seed: int = 0) -> Bf16Layer:
    return Bf16Layer(numbers((width, columns), seed), numbers((columns,), seed + 10))


def numbers(shape: Sequence[int], seed: int = 0) -> Any:
    """Of a normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
