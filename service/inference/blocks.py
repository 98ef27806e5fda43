"""The blocks of a network as they are in an exported classifier, found around their attention."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, helper

DOMAIN = "deepvit"  # of the project's operators

Constant = Callable[[str], Any]  # the array of a name; None if it is computed from the images


class Block(NamedTuple):
    """x + attention(norm(x)), then x + second(gelu(first(norm(x)))), each node by its role."""

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
    def queries_all(self) -> bool:
        """Whether there is a query for every token; the last block may have those of few."""
        return bool(self.q.input[0] == self.k.input[0])

    @property
    def skip(self) -> str:
        """The x that attention is added to."""
        return next(name for name in self.sum.input if name != self.projection.output[0])


def find_blocks(graph: GraphProto, constant: Constant) -> list[Block]:
    """Those that consist of the operators that exports usually have, and of no others."""
    finder = _Finder(graph, constant)
    attentions = (node for node in graph.node if node.domain == DOMAIN)
    return [block for node in attentions if (block := finder.around(node))]


class _Finder:
    def __init__(self, graph: GraphProto, constant: Constant) -> None:
        self._constant = constant
        self._producers = {name: node for node in graph.node for name in node.output}
        self._uses: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._uses.setdefault(name, []).append(node)

    def around(self, attention: NodeProto) -> Block | None:
        """None if the nodes around an attention are not those of a block."""
        before = [self._producers.get(name) for name in attention.input[:3]]
        if attention.op_type not in ("Attention", "ReAttention"):
            return None
        try:
            q, k, v = map(self._linear, before)
            norm = self._norm(self._producers.get(k.input[0]))
            projection = self._linear(self._next(attention))
            total = self._next(projection, "Add")
            behind = {use.op_type: use for use in self._uses[total.output[0]]}
            second_norm = self._norm(behind.pop("LayerNormalization", None))
            first = self._linear(self._next(second_norm))
            gelu = self._next(first, "Gelu")
            second = self._linear(self._next(gelu))
            end = self._next(second, "Add")
        except _OtherwiseError:
            return None
        exact = all(attribute.s in (b"", b"none") for attribute in gelu.attribute)
        if k.input[0] != v.input[0] or list(behind.values()) != [end] or not exact:
            return None
        return Block(
            norm, q, k, v, attention, projection, total, second_norm, first, gelu, second, end
        )

    def _next(self, node: NodeProto, operator: str = "") -> NodeProto:
        """The one node that uses an output."""
        uses = self._uses.get(node.output[0], [])
        if len(uses) != 1 or (operator and uses[0].op_type != operator):
            raise _OtherwiseError
        return uses[0]

    def _linear(self, node: NodeProto | None) -> NodeProto:
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
        if (
            node is None
            or node.op_type not in ("Gemm", "MatMul")
            or any(self._constant(name) is None for name in node.input[1:])
            or any(plain[name] != value for name, value in attributes(node).items())
        ):
            raise _OtherwiseError
        return node

    def _norm(self, node: NodeProto | None) -> NodeProto:
        """A LayerNorm without gain and bias, which exports fold into the layers behind it."""
        if node is None or node.op_type != "LayerNormalization" or len(node.input) != 2:
            raise _OtherwiseError
        gain = self._constant(node.input[1])
        if gain is None or not np.all(gain == 1) or attributes(node).get("axis") != -1:
            raise _OtherwiseError
        return node


def attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


class _OtherwiseError(Exception):
    """The nodes are not those of a block."""
