"""Rewriting graphs, node by node. Knows graphs, not what they mean."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

T = TypeVar("T")

ORT_DOMAIN = "com.microsoft"  # of ONNX Runtime's own operators


def insert(
    before: ir.Node,
    name: str,
    operator: str,
    inputs: Sequence[ir.Value | None],
    domain: str = "",
    attributes: Mapping[str, ir.Attr] = MappingProxyType({}),
    outputs: Sequence[str] = ("",),
) -> ir.Node:
    """A new node; the name of each output is `name` and one of the suffixes in `outputs`."""
    node = ir.Node(domain, operator, inputs, attributes.values(), num_outputs=len(outputs))
    for value, suffix in zip(node.outputs, outputs, strict=True):
        value.name = f"{name}{suffix}"
    graph = present(before.graph)
    graph.insert_before(before, node)
    return node


def replace(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Remove a node; these values take the place of its outputs."""
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


def is_linear(node: ir.Node) -> bool:
    """Whether this is a matrix product with constant weights."""
    return node.op_type in ("Gemm", "MatMul") and is_constant(node.inputs[1])


def array(value: ir.Value | None) -> npt.NDArray[Any]:
    """The content of a constant."""
    return present(present(value).const_value).numpy()


def present(value: T | None) -> T:
    assert value is not None
    return value
