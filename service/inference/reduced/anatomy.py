"""The stem and the blocks of a network, found among the nodes of an exported classifier."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, helper

DOMAIN = "deepvit"  # of the project's operators

_IMAGES = "images"  # the name of the input

Constant = Callable[[str], Any]  # the array of a name; None if it is computed from the images


class Block(NamedTuple):
    """x + attention(norm(x)), then x + second(gelu(first(norm(x)))): each node by its role."""

    norm: NodeProto
    q: NodeProto
    k: NodeProto
    v: NodeProto
    attention: NodeProto
    projection: NodeProto
    sum: NodeProto
    second_norm: NodeProto
    first: NodeProto
    gelu: NodeProto
    second: NodeProto
    end: NodeProto

    @property
    def asks_for_all(self) -> bool:
        """Whether every token has a query; in the last block those have one that the head sees."""
        return bool(self.q.input[0] == self.k.input[0])

    @property
    def skip(self) -> str:
        """The x that attention is added to."""
        (name,) = set(self.sum.input) - {self.projection.output[0]}
        return str(name)


class Stem(NamedTuple):
    """Pixels minus their mean through three convolutions, to features of patches."""

    permute: NodeProto
    cast: NodeProto
    centre: NodeProto
    first: NodeProto
    relu: NodeProto
    second: NodeProto
    second_relu: NodeProto
    third: NodeProto
    flatten: NodeProto
    end: NodeProto

    @property
    def convolutions(self) -> tuple[NodeProto, NodeProto, NodeProto]:
        return self.first, self.second, self.third


class Anatomy:
    """What can be recognised in a graph: parts of the operators that exports usually have."""

    def __init__(self, nodes: Sequence[NodeProto], constant: Constant) -> None:
        self._nodes = nodes
        self._constant = constant
        self._producers = {name: node for node in nodes for name in node.output}
        self._uses: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._uses.setdefault(name, []).append(node)

    def blocks(self) -> list[Block]:
        found = []
        for node in self._nodes:
            if node.domain == DOMAIN and node.op_type in ("Attention", "ReAttention"):
                try:
                    found.append(self._block(node))
                except _OtherError:
                    continue
        return found

    def stem(self) -> Stem | None:
        try:
            return self._stem()
        except _OtherError:
            return None

    def _block(self, attention: NodeProto) -> Block:
        q, k, v = (self._linear(self._producers.get(name)) for name in attention.input[:3])
        norm = self._norm(self._producers.get(k.input[0]))
        projection = self._linear(self._next(attention))
        total = self._next(projection, "Add")
        behind = {use.op_type: use for use in self._uses.get(total.output[0], [])}
        second_norm = self._norm(behind.pop("LayerNormalization", None))
        first = self._linear(self._next(second_norm))
        gelu = self._next(first, "Gelu")
        second = self._linear(self._next(gelu))
        end = self._next(second, "Add")
        exact = attributes(gelu).get("approximate", b"none") == b"none"
        if k.input[0] != v.input[0] or list(behind.values()) != [end] or not exact:
            raise _OtherError
        return Block(
            norm, q, k, v, attention, projection, total, second_norm, first, gelu, second, end
        )

    def _stem(self) -> Stem:
        nodes = self._uses.get(_IMAGES, [])
        if len(nodes) != 1 or attributes(nodes[0]) != {"perm": [0, 3, 1, 2]}:
            raise _OtherError
        for kind in ("Cast", "Sub", "Conv", "Relu", "Conv", "Relu", "Conv", "Reshape", "Transpose"):
            nodes.append(self._next(nodes[-1], kind))
        stem = Stem(*nodes)
        plain = {"group": 1, "auto_pad": b"NOTSET", "dilations": [1, 1]}
        for node in stem.convolutions:
            facts = plain | attributes(node)
            sides: list[list[int]] = [facts.pop(one) for one in ("kernel_shape", "strides", "pads")]
            if any(len(set(side)) > 1 for side in sides) or facts != plain:
                raise _OtherError
        constants = [stem.centre, *stem.convolutions]
        if any(self._constant(name) is None for node in constants for name in node.input[1:]):
            raise _OtherError
        if attributes(stem.end) != {"perm": [0, 2, 1]}:
            raise _OtherError
        return stem

    def _next(self, node: NodeProto, operator: str = "") -> NodeProto:
        """The one node that uses the output of another."""
        uses = self._uses.get(node.output[0], [])
        if len(uses) != 1 or (operator and uses[0].op_type != operator):
            raise _OtherError
        return uses[0]

    def _linear(self, node: NodeProto | None) -> NodeProto:
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
        if (
            node is None
            or node.op_type not in ("Gemm", "MatMul")
            or any(self._constant(name) is None for name in node.input[1:])
            or (plain | attributes(node)) != plain
        ):
            raise _OtherError
        return node

    def _norm(self, node: NodeProto | None) -> NodeProto:
        """A LayerNorm without gain and bias, which exports fold into the layers behind it."""
        if node is None or node.op_type != "LayerNormalization" or len(node.input) > 2:
            raise _OtherError
        gain = self._constant(node.input[1]) if len(node.input) == 2 else np.ones(1)
        if gain is None or not np.all(gain == 1) or attributes(node)["axis"] != -1:
            raise _OtherError
        return node


def attributes(node: NodeProto) -> dict[Any, Any]:
    """By name."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


class _OtherError(Exception):
    """The nodes are others than those of the part."""
