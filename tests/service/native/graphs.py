"""Graphs of one operator each, with inputs: sound ones, and such as only an attacker writes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from export.functions import DOMAIN

RAN = "ran"
Arrays = dict[str, npt.NDArray[Any]]

_ATTENTION = ("q", "k", "v")
_REATTENTION = (*_ATTENTION, "theta", "offset")
# What these return is in bfloat16.
_HALVED = ("Bf16Linear", "Int8Linear", "Bf16Attention", "Bf16ReAttention")
_MEASURES = ("column", "row", "centred", "neighbours", "heads")
_AXES = "must be [-1, tokens, heads, width]"
_INVALID = "This is an invalid model"  # so says ONNX Runtime, before it asks the kernels
_FOUR_OR_LESS = ((), (80,), (10, 8, 1), (2, 5, 2, 4), (9, 8), (0, 8), (10, 0))
_WRONG_SHAPES: tuple[tuple[int, ...], ...] = (*_FOUR_OR_LESS, (1, 2, 5, 2, 4))
_NO_NUMBERS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-40]  # the last is not a normal number


class Case(NamedTuple):
    """A graph, its inputs, and what becomes of it: `RAN`, or a part of the message."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: dict[str, Any]
    given: Arrays
    becomes: str = RAN
    halves: Sequence[str] = ()  # inputs that the operator takes in bfloat16


def save(cases: Mapping[str, Case], folder: Path) -> None:
    """As one_operator.py reads them."""
    for name, case in cases.items():
        found = [_value(name, np.dtype(np.float32)) for name in case.outputs if name]
        given = [_value(name, values.dtype) for name, values in case.given.items()]
        graph = helper.make_graph(list(_nodes(case)), "graph", given, found)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
        np.savez(folder / f"{name}.npz", allow_pickle=False, **case.given)


def _nodes(case: Case) -> Iterator[NodeProto]:
    """The operator, between casts if it is one in bfloat16."""
    inputs, outputs = list(case.inputs), list(case.outputs)
    for name in case.halves:
        yield helper.make_node("Cast", [name], [f"{name}.half"], to=TensorProto.BFLOAT16)
        inputs[inputs.index(name)] = f"{name}.half"
    halved = case.operator in _HALVED
    made = [f"{name}.half" for name in outputs] if halved else outputs
    yield helper.make_node(case.operator, inputs, made, domain=DOMAIN, **case.attributes)
    if halved:
        for name in outputs:
            yield helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)


def _value(name: str, dtype: np.dtype[Any]) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_value_info(name, kind, None)  # of any shape


def sound() -> dict[str, Case]:
    """Shapes that leave parts of vectors over, with numbers and without."""
    cases = {}
    for shape in [(1, 1, 1, 1, 1), (3, 17, 17, 3, 16), (1, 33, 50, 13, 5), (2, 1, 65, 6, 7)]:
        for mixes in (False, True):
            name = "-".join(map(str, shape)) + "-mixed" * mixes
            cases[f"attention-{name}"] = _attention(shape, mixes)
            cases[f"open-{name}"] = _attention(shape, mixes, "Open")
    cases["attention-no-numbers"] = _attention((2, 17, 17, 3, 16), True, fill=_NO_NUMBERS)
    for maps in [(1, 1, 1, 4), (2, 3, 2, 10), (1, 5, 3, 18), (2, 16, 6, 65), (1, 2, 12, 50)]:
        name = "-".join(map(str, maps))
        cases[f"similarity-{name}"] = _similarity(maps)
        cases[f"softmax-{name}"] = _similarity(maps, softmax=True)
    cases["similarity-no-numbers"] = _similarity((2, 3, 2, 10), fill=_NO_NUMBERS)
    cases["softmax-no-numbers"] = _similarity((2, 3, 2, 17), softmax=True, fill=_NO_NUMBERS)
    for features in [(1, 1, 2, 3), (2, 5, 17, 31), (3, 16, 65, 192)]:
        cases["features-" + "-".join(map(str, features))] = _features(features)
    cases["features-no-numbers"] = _features((2, 5, 17, 31), fill=_NO_NUMBERS)
    return cases


def hostile() -> dict[str, Case]:
    return {
        **dict(_hostile_attributes()),
        **dict(_hostile_inputs()),
        **dict(_hostile_measures()),
        **dict(_empty()),
    }


def _hostile_attributes() -> Iterator[tuple[str, Case]]:
    plain, huge = _attention((2, 5, 5, 2, 4)), 2**62
    for name, axes, rows, becomes in [
        ("heads-overflow", [-1, 1, huge + 1, 4], (1, 4), _AXES),
        ("width-overflows", [-1, 1, 4, huge + 1], (1, 4), _AXES),
        ("tokens-overflow", [-1, huge, 1, 4], (0, 4), _AXES),
        ("heads-times-keys-overflow", [-1, 2**31, 2**33, 1], (0, 4), _AXES),
        ("longest-axes", [-1, 2**30, 2**15, 2**15], (0, 2**30), RAN),
        ("longest-axes-of-too-few-rows", [-1, 2**30, 1, 4], (1, 4), "fit"),
        ("no-tokens", [-1, 0, 1, 4], (1, 4), _AXES),
        ("negative", [-1, 5, -2, -4], (10, 8), _AXES),
        ("three-axes", [-1, 5, 2], (10, 8), _AXES),
        ("five-axes", [-1, 5, 2, 4, 9], (10, 8), "not large enough"),
        ("numbers-of-another-type", [1.0, 5.0, 2.0, 4.0], (10, 8), _AXES),
        ("one-number", 5, (10, 8), _AXES),
    ]:
        given = {name: np.zeros(rows, np.float32) for name in _ATTENTION}
        attributes = {"queries": axes, "keys": axes}
        yield name, plain._replace(attributes=attributes, given=given, becomes=becomes)
    yield "no-attributes", plain._replace(attributes={}, becomes="No attribute")
    other = {"queries": [-1, 5, 4, 2], "keys": [-1, 5, 2, 4]}
    yield "heads-differ", plain._replace(attributes=other, becomes="differ")


def _hostile_inputs() -> Iterator[tuple[str, Case]]:
    plain, mixed = _attention((2, 5, 5, 2, 4)), _attention((2, 5, 5, 2, 4), mixes=True)
    for name in _ATTENTION:
        for shape in [
            (),
            (80,),
            (10, 8, 1),
            (2, 5, 2, 4),
            (1, 2, 5, 2, 4),
            (9, 8),
            (0, 8),
            (10, 0),
        ]:
            changed = mixed.given | {name: np.zeros(shape, np.float32)}
            written = "-".join(map(str, shape)) or "scalar"
            axes = "more than four axes" if len(shape) > 4 else "fit"
            yield f"{name}-{written}", mixed._replace(given=changed, becomes=axes)
        doubles = plain.given | {name: plain.given[name].astype(np.float64)}
        yield f"{name}-of-doubles", plain._replace(given=doubles, becomes="Type Error")
        missing = ["" if given == name else given for given in plain.inputs]
        yield f"{name}-missing", plain._replace(inputs=missing, becomes=_INVALID)
    yield "two-inputs", plain._replace(inputs=plain.inputs[:2], becomes=_INVALID)
    for name, shape in [("theta", (2,)), ("theta", (4, 1)), ("offset", (1, 2)), ("offset", (3,))]:
        changed = mixed.given | {name: np.zeros(shape, np.float32)}
        written = "-".join(map(str, shape))
        yield f"{name}-{written}", mixed._replace(given=changed, becomes="fit")
    opened = _attention((2, 5, 5, 2, 4), form="Open")
    yield "open-without-its-result", opened._replace(outputs=["maps", ""], becomes=_INVALID)


def _hostile_measures() -> Iterator[tuple[str, Case]]:
    plain, softmax = (_similarity((2, 3, 2, 10), softmax=choice) for choice in (False, True))
    for prefix in (-1, 10, 2**62, -(2**63)):
        changed = softmax._replace(attributes={"prefix": prefix}, becomes="prefix")
        yield f"prefix-{prefix}", changed
    yield "no-prefix", softmax._replace(attributes={}, becomes="prefix")
    for shape in [(10,), (10, 9), (1, 10, 10), (0, 0)]:
        given = softmax.given | {"reach": np.zeros(shape, np.float32)}
        written = "-".join(map(str, shape))
        yield f"reach-{written}", softmax._replace(given=given, becomes="fit")
    for name in ("block0", "block1"):
        for shape in [(2, 2, 10, 9), (2, 10, 10), (0,), (1, 2, 10, 10), (2, 2, 2, 10, 10)]:
            given = plain.given | {name: np.zeros(shape, np.float32)}
            written = "-".join(map(str, shape))
            becomes = "more than four axes" if len(shape) > 4 else "fit"
            yield f"{name}-{written}", plain._replace(given=given, becomes=becomes)
    for at, name in enumerate(plain.outputs):
        outputs = [*plain.outputs[:at], "", *plain.outputs[at + 1 :]]
        yield f"without-{name}", plain._replace(outputs=outputs, becomes=_INVALID)
    yield "without-a-block", plain._replace(inputs=["block0", "", "block2"], becomes="FAIL")
    features = _features((2, 3, 5, 7))
    for shape in [(), (2, 5), (1, 2, 5, 7), (2, 5, 8)]:
        given = features.given | {"block1": np.zeros(shape, np.float32)}
        written = "-".join(map(str, shape)) or "scalar"
        yield f"features-of-{written}", features._replace(given=given, becomes="fit")
    flat = {name: np.zeros((2, 5), np.float32) for name in features.given}
    yield "features-of-two-axes", features._replace(given=flat, becomes="must be")


def _empty() -> Iterator[tuple[str, Case]]:
    for mixes in (False, True):
        for form in ("", "Open"):
            name = f"empty-{form}attention" + "-mixed" * mixes
            yield name, _attention((0, 5, 7, 2, 4), mixes, form)
    for softmax in (False, True):
        yield f"no-images{'-softmax' * softmax}", _similarity((0, 3, 2, 10), softmax)
        yield f"no-heads{'-softmax' * softmax}", _similarity((2, 3, 0, 10), softmax)
    yield "no-tokens-similarity", _similarity((2, 3, 2, 0))
    yield "images-of-nothing", _similarity((1000, 2, 0, 3))
    yield "too-many-images", _similarity((2**31, 2, 0, 3))._replace(becomes="too long")
    for shape in [(0, 3, 5, 7), (2, 3, 0, 7), (2, 3, 5, 0)]:
        yield "features-" + "-".join(map(str, shape)), _features(shape)


def _attention(
    shape: tuple[int, int, int, int, int],
    mixes: bool = False,
    form: str = "",
    fill: Sequence[float] = (),
) -> Case:
    """Images, queries, keys, heads, width."""
    images, queries, keys, heads, width = shape
    given = {
        "q": _numbers((images * queries, heads * width), fill),
        "k": _numbers((images * keys, heads * width), fill),
        "v": _numbers((images * keys, heads * width), fill),
    }
    if mixes:
        given |= {"theta": _numbers((heads, heads)), "offset": _numbers((heads,))}
    return Case(
        f"{form}{'ReAttention' if mixes else 'Attention'}",
        _REATTENTION if mixes else _ATTENTION,
        [*(["maps", "mixed"][: 1 + mixes] if form else []), "out"],
        {"queries": [-1, queries, heads, width], "keys": [-1, keys, heads, width]},
        given,
    )


def _similarity(
    shape: tuple[int, int, int, int], softmax: bool = False, fill: Sequence[float] = ()
) -> Case:
    """Images, blocks, heads, tokens."""
    images, blocks, heads, tokens = shape
    given = {
        f"block{index}": _numbers((images, heads, tokens, tokens), fill) for index in range(blocks)
    }
    if not softmax:
        return Case("Similarity", list(given), _MEASURES, {}, given)
    given = {"reach": _numbers((tokens, tokens)), **given}
    outputs = (*_MEASURES, "entropy", "distance")
    return Case("SoftmaxSimilarity", list(given), outputs, {"prefix": 1}, given)


def _features(shape: tuple[int, int, int, int], fill: Sequence[float] = ()) -> Case:
    """Images, blocks, tokens, width."""
    images, blocks, tokens, width = shape
    given = {f"block{index}": _numbers((images, tokens, width), fill) for index in range(blocks)}
    return Case("FeatureSimilarity", list(given), ["features"], {}, given)


def _numbers(shape: Sequence[int], fill: Sequence[float] = ()) -> npt.NDArray[np.float32]:
    """Between 0 and 1, with others strewn in."""
    random = np.random.default_rng(0)
    numbers = random.random(shape, dtype=np.float32)
    if fill and numbers.size:
        places = random.integers(numbers.size, size=2 * len(fill))
        numbers.flat[places] = np.resize(np.array(fill, np.float32), len(places))
    return numbers
