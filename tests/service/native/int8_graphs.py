"""Graphs of one operator in 8 bits each: sound ones, and such as only an attacker writes."""

import re
from collections.abc import Iterator

import numpy as np

from service.inference.reduced.int8 import Int8Layer
from service.inference.reduced.layers import padded
from tests.service.native.bf16_graphs import LINEAR_SHAPES, REST_SHAPES, numbers
from tests.service.native.graphs import Arrays, Case

_MOST = 63  # of a weight, as exports have them
_NO_WEIGHTS, _NO_ROUNDING = "weights do not fit", "steps, scale or offset do not fit"


def sound() -> dict[str, Case]:
    """The shapes of the same operators in bfloat16."""
    cases = {}
    for rows, width, columns in LINEAR_SHAPES:
        name = f"{rows}-{width}-{columns}"
        cases[f"int8-linear-{name}"] = linear(rows, width, columns)
        cases[f"int8-normed-{name}"] = linear(rows, width, columns, epsilon=1e-6)
    for rows, width, hidden in REST_SHAPES:
        cases[f"int8-rest-{rows}-{width}-{hidden}"] = rest(rows, width, hidden)
    cases["int8-no-rows"] = linear(0, 3, 16)
    return cases


def hostile() -> dict[str, Case]:
    return {
        "int8-" + re.sub(r"[^\w-]+", "_", name): case  # lines are read up to blanks
        for name, case in [*_of_one_layer(), *_of_three()]
    }


def _of_one_layer() -> Iterator[tuple[str, Case]]:
    plain, zeros = linear(7, 3, 16), np.zeros
    for shape in [(), (16,), (2, 16), (0, 16), (1, 32), (1, 1, 16)]:
        given = plain.given | {"panels": zeros(shape, np.uint32)}
        yield f"panels-{shape}", plain._replace(given=given, becomes=_NO_WEIGHTS)
    for name in ("steps", "scale", "offset"):
        for shape in [(), (15,), (3,), (32,), (0,), (1, 16)]:
            given = plain.given | {name: zeros(shape, np.float32)}
            yield f"{name}-{shape}", plain._replace(given=given, becomes=_NO_ROUNDING)
    for shape in [(), (7,), (7, 1, 3)]:
        given = plain.given | {"x": zeros(shape, np.float32)}
        yield f"x-{shape}", plain._replace(given=given, becomes="rows")
    given = plain.given | {"x": np.full((7, 3), np.nan, np.float32)}
    yield "no-numbers", plain._replace(given=given)
    given = plain.given | {"scale": np.full(16, np.inf, np.float32)}
    yield "infinite-scale", plain._replace(given=given)


def _of_three() -> Iterator[tuple[str, Case]]:
    plain = rest(7, 4, 32)
    for name, shape in [("attended", (6, 4)), ("attended", (7, 5)), ("x", (6, 4)), ("x", (7,))]:
        given = plain.given | {name: np.zeros(shape, np.float32)}
        yield f"{name}-{shape}-of-the-rest", plain._replace(given=given, becomes="do not fit")
    for part, becomes in [("panels", _NO_WEIGHTS), ("scale", _NO_ROUNDING)]:
        for number in range(3):
            given = dict(plain.given)
            given[f"{part}{number}"] = np.zeros_like(given[f"{part}{number}"])[:-1]
            yield f"less-{part}{number}", plain._replace(given=given, becomes=becomes)
    negative = plain.attributes | {"epsilon": -1.0}
    yield "rest-without-a-norm", plain._replace(attributes=negative, becomes="do not fit")
    given = plain.given | {f"{part}2": of for part, of in layer(32, 20).packed().items()}
    yield "another-width", plain._replace(given=given, becomes="do not return")


def linear(rows: int, width: int, columns: int, epsilon: float = -1.0) -> Case:
    given: Arrays = {"x": numbers((rows, width)), **layer(width, columns, seed=1).packed()}
    facts = {"epsilon": epsilon, "threads": 2}
    return Case("Int8Linear", list(given), ["out"], facts, given)


def rest(rows: int, width: int, hidden: int) -> Case:
    """As wide heads as there are columns, made even."""
    given: Arrays = {"attended": numbers((rows, width + width % 2), 4), "x": numbers((rows, width))}
    for number, one in enumerate(layers_of_the_rest(width, hidden)):
        given |= {f"{part}{number}": array for part, array in one.packed().items()}
    facts = {"epsilon": 1e-6, "threads": 2}
    return Case("Int8Rest", list(given), ["out"], facts, given, halves=("attended",))


def layers_of_the_rest(width: int, hidden: int) -> list[Int8Layer]:
    projection, first = layer(width + width % 2, width, 1), layer(width, hidden, 2)
    return [projection, first, layer(hidden, width, 3).with_rows(padded(hidden))]


def layer(width: int, columns: int, seed: int = 0) -> Int8Layer:
    """Rounds numbers of a normal distribution to all of 0 .. 255, and a few beyond."""
    random = np.random.default_rng(seed)
    return Int8Layer(
        weight=random.integers(-_MOST, _MOST + 1, (width, columns), dtype=np.int8),
        bias=numbers((columns,), seed + 10),
        steps=np.abs(numbers((columns,), seed + 11)) / 255 / _MOST,
        scale=45 + 5 * numbers((width,), seed + 12),
        offset=128 + 10 * numbers((width,), seed + 13),
    )
