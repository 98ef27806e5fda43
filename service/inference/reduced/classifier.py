"""A classifier whose stem and blocks are rewritten to operators in bfloat16 or int8."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, helper

from service.inference.reduced.anatomy import DOMAIN, Anatomy, Block, Constant, Stem, attributes
from service.inference.reduced.int8 import dequantized
from service.inference.reduced.layers import (
    Array,
    Bf16Layer,
    Layer,
    convolution,
    in_large_pages,
    padded,
)

_LOG2_E = np.float32(np.log2(np.e))  # softmax is computed with powers of two


class ReducedClassifier:
    """Nodes in order, and the constants of those that are in bfloat16 or int8.

    Blocks are in int8 if the graph was exported so.
    """

    def __init__(self, graph: GraphProto, constant: Constant) -> None:
        """Raises `ValueError` if there is no block that can be rewritten."""
        self._constant = constant
        self._made: dict[str, Array] = {}
        self._int8, nodes = dequantized(graph, constant)
        anatomy = Anatomy(nodes, constant)
        blocks, stem = anatomy.blocks(), anatomy.stem()
        if not blocks:
            raise ValueError("it has no block of the kind that runs on these kernels")
        instead: dict[str, list[NodeProto]] = {}  # by the first output of the node that goes
        for block in blocks:
            instead |= self._block(block)
        if stem:
            instead |= self._stem(stem)
        self._nodes = [new for node in graph.node for new in instead.get(node.output[0], [node])]
        self.constants = in_large_pages(self._made)

    def nodes(self, threads: int) -> list[NodeProto]:
        """For a session of so many threads, among which operators divide their work."""
        return [_with_threads(node, threads) for node in self._nodes]

    def _block(self, block: Block) -> dict[str, list[NodeProto]]:
        name, facts = block.attention.output[0], attributes(block.attention)
        heads, width = facts["keys"][2:]
        even = width + width % 2  # columns are summed in pairs
        layers = [self._layer(one).with_even_columns(heads) for one in (block.q, block.k, block.v)]
        layers[0] = layers[0].times(_LOG2_E)
        rows, columns = self._rows(block, layers)
        attention = _node(
            f"Bf16{block.attention.op_type}",
            [*(columns[part][0] for part in "qkv"), *block.attention.input[3:]],
            f"{name}.bf16",
            columns=[columns[part][1] for part in "qkv"],
            queries=[*facts["queries"][:3], even],
            keys=[*facts["keys"][:3], even],
        )
        projection = self._layer(block.projection).with_even_rows(heads)
        first, second = self._layer(block.first), self._layer(block.second)
        inputs = [attention.output[0], block.skip]
        inputs += self._inputs(f"{name}.projection", projection)
        inputs += self._inputs(f"{name}.first", first)
        inputs += self._inputs(f"{name}.second", second.with_rows(padded(first.columns)))
        rest = _node(
            f"{first.precision}Rest",
            inputs,
            block.end.output[0],
            epsilon=_epsilon(block.second_norm),
        )
        gone: dict[str, list[NodeProto]] = {
            node.output[0]: [] for node in block if node is not block.norm
        }
        return gone | {name: [*rows, attention], block.end.output[0]: [rest]}

    def _rows(
        self, block: Block, layers: Sequence[Layer]
    ) -> tuple[list[NodeProto], dict[str, tuple[str, int]]]:
        """Nodes that compute queries, keys and values; of each, its tensor and first column."""
        name, x, epsilon = block.attention.output[0], block.norm.input[0], _epsilon(block.norm)
        width = layers[0].columns
        if block.asks_for_all:
            made = self._linear(f"{name}.qkv", x, layers, epsilon)
            (qkv,) = made.output
            return [made], {"q": (qkv, 0), "k": (qkv, width), "v": (qkv, 2 * width)}
        asking = self._linear(f"{name}.q", block.q.input[0], layers[:1], -1.0)  # normed already
        asked = self._linear(f"{name}.kv", x, layers[1:], epsilon)
        (q,), (kv,) = asking.output, asked.output
        return [asking, asked], {"q": (q, 0), "k": (kv, 0), "v": (kv, width)}

    def _linear(self, name: str, x: str, layers: Sequence[Layer], epsilon: float) -> NodeProto:
        """Several layers of the same rows as one, behind a norm unless epsilon is negative."""
        first, *others = layers
        inputs = [x, *self._inputs(name, first.beside(others))]
        return _node(f"{first.precision}Linear", inputs, name, epsilon=epsilon)

    def _stem(self, stem: Stem) -> dict[str, list[NodeProto]]:
        name = stem.end.output[0]
        offset = self._constant(stem.centre.input[1])
        self._made[f"{name}.offset"] = offset.reshape(-1)
        inputs, channels = [stem.permute.input[0], f"{name}.offset"], offset.size
        for number, node in enumerate(stem.convolutions):
            weight, bias = (self._constant(one) for one in node.input[1:])
            inputs += self._inputs(f"{name}.{number}", convolution(weight, bias, channels))
            features, channels = len(bias), padded(len(bias))
        facts = [attributes(node) for node in stem.convolutions]
        made = _node(
            "Bf16Stem",
            inputs,
            name,
            features=features,
            windows=[one["kernel_shape"][0] for one in facts],
            strides=[one["strides"][0] for one in facts],
            paddings=[one["pads"][0] for one in facts],
        )
        return {node.output[0]: [] for node in stem} | {name: [made]}

    def _layer(self, node: NodeProto) -> Layer:
        if layer := self._int8.get(node.output[0]):
            return layer
        weight = self._constant(node.input[1])
        if len(node.input) == 2:
            return Bf16Layer(weight, np.zeros(weight.shape[1], np.float32))
        return Bf16Layer(weight, self._constant(node.input[2]))

    def _inputs(self, name: str, layer: Layer) -> list[str]:
        """The names of a layer's weights and what belongs to them."""
        arrays = {f"{name}.{part}": array for part, array in layer.packed().items()}
        self._made |= arrays
        return list(arrays)


def _node(operator: str, inputs: Sequence[str], output: str, **facts: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], domain=DOMAIN, **facts)


def _epsilon(norm: NodeProto) -> float:
    return float(attributes(norm)["epsilon"])


def _with_threads(node: NodeProto, threads: int) -> NodeProto:
    if node.domain != DOMAIN or not node.op_type.startswith(("Bf16", "Int8")):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(helper.make_attribute("threads", threads))
    return copy
