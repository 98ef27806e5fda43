"""Nodes and constants of a graph that is rewritten. Knows graphs, not what they mean."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

T = TypeVar("T")


def insert(
    before: ir.Node,
    name: str,
    operator: str,
    inputs: Sequence[ir.Value | None],
    domain: str = "",
    attributes: Mapping[str, ir.Attr] = MappingProxyType({}),
    outputs: Sequence[str] = ("",),
) -> ir.Node:
    """A new node, whose outputs are named `name` and a suffix each."""
    node = ir.Node(domain, operator, inputs, attributes.values(), num_outputs=len(outputs))
    for value, suffix in zip(node.outputs, outputs, strict=True):
        value.name = f"{name}{suffix}"
    graph = present(before.graph)
    graph.insert_before(before, node)
    return node


def replace(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Remove a node; who used its outputs uses these."""
    for output, value in zip(node.outputs, values, strict=True):
        output.replace_all_uses_with(value)
    present(node.graph).remove(node, safe=True)


def constant(graph: ir.Graph, name: str, content: npt.NDArray[Any]) -> ir.Value:
    """A new initializer; float64 becomes float32."""
    if content.dtype == np.float64:
        content = content.astype(np.float32)
    tensor = ir.tensor(content, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(content.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def array(value: ir.Value | None) -> npt.NDArray[Any]:
    """Of a constant."""
    return present(present(value).const_value).numpy()


def present(value: T | None) -> T:
    assert value is not None
    return value
