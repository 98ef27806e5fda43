"""A float32 classifier with its blocks in bfloat16, for processors that multiply it by themselves.

Linear layers and both products of attention take bfloat16 and sum in float32; norms, softmax,
Re-attention, GELU and the residual stream are in float32. The operators exist in the compiled
kernels alone (service/native/operators_bf16.cpp), so graphs are rewritten when they are loaded.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, helper

from models.arrays import Float32Array
from service.inference.blocks import DOMAIN, Block, Constant, attributes, find_blocks

_PANEL = 64  # columns of weights that lie together
_STEP = 16  # columns are padded to a multiple of it
_LOG2_E = np.float32(np.log2(np.e))  # softmax is computed with powers of two

Packed = npt.NDArray[np.uint32]


class Layer(NamedTuple):
    """Weights [in, out] and bias [out]."""

    weight: Float32Array
    bias: Float32Array


class Bf16Classifier:
    """The nodes of a classifier, and the packed weights of those in bfloat16."""

    def __init__(self, graph: GraphProto, constant: Constant) -> None:
        """Raises `ValueError` if there is no block that can be rewritten."""
        self.constants: dict[str, Float32Array | Packed] = {}
        self._constant = constant
        self._nodes = list(graph.node)
        instead: dict[str, list[NodeProto]] = {}  # by the first output of the node that goes
        for block in find_blocks(graph, constant):
            instead |= self._rewritten(block)
        if not instead:
            raise ValueError("no block of the network is one that can run in bf16")
        self._nodes = [
            new for node in graph.node for new in instead.get(node.output[0], [node])
        ]

    def nodes(self, threads: int) -> list[NodeProto]:
        """For a session of so many threads, among which operators share their work evenly."""
        return [_with_threads(node, threads) for node in self._nodes]

    def _rewritten(self, block: Block) -> dict[str, list[NodeProto]]:
        attention, name = block.attention, block.attention.output[0]
        _, _, heads, width = attributes(attention)["keys"]
        even = width + width % 2  # heads are padded with zeros: columns are summed in pairs
        q, k, v = (_even_columns(self._layer(one), heads) for one in (block.q, block.k, block.v))
        q = Layer(q.weight * _LOG2_E, q.bias * _LOG2_E)
        norm = {"epsilon": attributes(block.norm)["epsilon"]}
        x, columns = block.norm.input[0], heads * even
        if block.queries_all:
            made = [self._linear(f"{name}.qkv", x, [q, k, v], **norm)]
            rows, begin = [made[0].output[0]] * 3, [0, columns, 2 * columns]
        else:
            asking = self._linear(f"{name}.q", block.q.input[0], [q], epsilon=-1.0)  # normed
            made = [asking, self._linear(f"{name}.kv", x, [k, v], **norm)]
            rows, begin = [made[0].output[0], *[made[1].output[0]] * 2], [0, 0, columns]
        made.append(
            helper.make_node(
                f"Bf16{attention.op_type}",
                [*rows, *attention.input[3:]],
                [f"{name}.bf16"],
                domain=DOMAIN,
                columns=begin,
                queries=[*attributes(attention)["queries"][:3], even],
                keys=[*attributes(attention)["keys"][:3], even],
            )
        )
        projection = _even_rows(self._layer(block.projection), heads)
        layers = [projection, self._layer(block.first), self._layer(block.second)]
        inputs = [one for layer, at in zip(layers, "012") for one in self._inputs(f"{name}.{at}", layer)]
        rest = helper.make_node(
            "Bf16Rest",
            [made[-1].output[0], block.skip, *inputs],
            [block.end.output[0]],
            domain=DOMAIN,
            epsilon=attributes(block.second_norm)["epsilon"],
        )
        gone = {node.output[0]: [] for node in block if node is not block.norm}
        return gone | {name: made, block.end.output[0]: [rest]}

    def _linear(self, name: str, x: str, layers: list[Layer], epsilon: float) -> NodeProto:
        """Several layers of the same rows as one, behind a norm if epsilon is not negative."""
        weights, biases = zip(*layers, strict=True)
        joined = Layer(np.concatenate(weights, axis=1), np.concatenate(biases))
        inputs = [x, *self._inputs(name, joined)]
        return helper.make_node("Bf16Linear", inputs, [name], domain=DOMAIN, epsilon=epsilon)

    def _layer(self, node: NodeProto) -> Layer:
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[1])
        return Layer(weight, bias.astype(np.float32))

    def _inputs(self, name: str, layer: Layer) -> Iterable[str]:
        """The names of the packed weights and the padded bias."""
        wide = -(-len(layer.bias) // _STEP) * _STEP
        bias = np.pad(layer.bias, (0, wide - len(layer.bias)))
        self.constants |= {f"{name}.panels": pack(layer.weight), f"{name}.bias": bias}
        return f"{name}.panels", f"{name}.bias"


def pack(weight: Float32Array) -> Packed:
    """Weights [in, out] to pairs [in / 2, out], padded, as bf16_product.h wants them.

    A pair is two neighbours along the axis that is summed, the first one in the low half. Pairs
    lie in panels of 64 columns, one behind the other, which the shape does not show.
    """
    rows, columns = weight.shape
    wide = -(-columns // _STEP) * _STEP
    bits = to_bf16(np.pad(weight, ((0, rows % 2), (0, wide - columns)))).astype(np.uint32)
    pairs = bits[::2] | bits[1::2] << 16
    panels = [pairs[:, start : start + _PANEL].ravel() for start in range(0, wide, _PANEL)]
    return np.concatenate(panels).reshape(pairs.shape)


def to_bf16(values: Float32Array) -> npt.NDArray[np.uint16]:
    """The nearest numbers of bfloat16, as their bits; of two, the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _even_columns(layer: Layer, heads: int) -> Layer:
    """Pads each head's columns with zeros to an even number."""
    weight = layer.weight.reshape(len(layer.weight), heads, -1)
    bias = layer.bias.reshape(heads, -1)
    odd = bias.shape[1] % 2
    return Layer(
        np.pad(weight, ((0, 0), (0, 0), (0, odd))).reshape(len(weight), -1),
        np.pad(bias, ((0, 0), (0, odd))).ravel(),
    )


def _even_rows(layer: Layer, heads: int) -> Layer:
    """The same for the layer that takes the heads' columns."""
    weight = layer.weight.reshape(heads, -1, layer.weight.shape[1])
    odd = weight.shape[1] % 2
    padded = np.pad(weight, ((0, 0), (0, odd), (0, 0)))
    return Layer(padded.reshape(-1, weight.shape[2]), layer.bias)


def _with_threads(node: NodeProto, threads: int) -> NodeProto:
    if node.domain != DOMAIN or not node.op_type.startswith("Bf16"):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(helper.make_attribute("threads", threads))
    return copy
