"""Each of attention's operators alone in a graph, and what it has to compute."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from export.functions import DOMAIN, attention
from models.arrays import Float32Array, Float64Array
from service import native

Shape = tuple[int, int, int, int, int]  # images, queries, keys, heads, width

_AXES = {"bias": 1, "offset": 1, "maps": 4, "mixed": 4}  # all others have 2


def model(
    shape: Shape,
    mixes: bool,
    element: int = TensorProto.FLOAT,
    form: Literal["", "Packed", "Open"] = "",
    outputs: Sequence[str] = ("out",),
) -> bytes:
    """A graph of one operator; the name "" leaves out one of its outputs."""
    _, queries, keys, heads, width = shape
    names = (["qkv", "bias"] if form == "Packed" else ["q", "k", "v"]) + ["theta", "offset"] * mixes
    node = helper.make_node(
        f"{form}{'ReAttention' if mixes else 'Attention'}",
        names,
        outputs,
        domain=DOMAIN,
        queries=[-1, queries, heads, width],
        keys=[-1, keys, heads, width],
    )
    given, found = (
        [
            helper.make_tensor_value_info(
                name, element, [f"{name}_{axis}" for axis in range(_AXES.get(name, 2))]
            )
            for name in values
            if name
        ]
        for values in (names, outputs)
    )
    graph = helper.make_graph([node], "attention", given, found)
    opset = helper.make_opsetid("", 20)
    made = ir.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=10))
    attention.add(made)
    content: bytes = ir.to_proto(made).SerializeToString()
    onnx.checker.check_model(content)
    return content


def session(content: bytes, fused: bool = True) -> ort.InferenceSession:
    """On a CPU, with the compiled kernels or as any runtime computes the graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    if fused:
        options.register_custom_ops_library(str(native.LIBRARY))
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def inputs(shape: Shape, mixes: bool, scale: float = 1.0) -> dict[str, Float32Array]:
    images, queries, keys, heads, width = shape
    random = np.random.default_rng(0)

    def normal(*sizes: int) -> Float32Array:
        return random.standard_normal(sizes, dtype=np.float32)

    found = {
        "q": scale * normal(images * queries, heads * width),
        "k": normal(images * keys, heads * width),
        "v": normal(images * keys, heads * width),
    }
    if mixes:
        found |= {"theta": normal(heads, heads), "offset": normal(heads)}
    return found


def equation_3(shape: Shape, given: dict[str, npt.NDArray[Any]]) -> Float64Array:
    """Eq. 3 in float64."""
    return laid_open(shape, given)["out"]


def laid_open(shape: Shape, given: dict[str, npt.NDArray[Any]]) -> dict[str, Float64Array]:
    """Every output by name, in float64; without Theta, both maps are the softmax map."""
    images, queries, keys, heads, width = shape
    q, k, v = (
        given[name].astype(np.float64).reshape(images, tokens, heads, width).transpose(0, 2, 1, 3)
        for name, tokens in (("q", queries), ("k", keys), ("v", keys))
    )
    scores = q @ k.swapaxes(-1, -2)
    maps = np.exp(scores - scores.max(axis=-1, keepdims=True))
    maps /= maps.sum(axis=-1, keepdims=True)
    mixed = maps
    if "theta" in given:
        mixed = np.einsum("gh,bhmn->bgmn", given["theta"].astype(np.float64), maps)
        mixed = mixed + given["offset"].astype(np.float64)[:, None, None]
    out = (mixed @ v).transpose(0, 2, 1, 3).reshape(images * queries, heads * width)
    return {"out": out, "maps": maps, "mixed": mixed}
