"""A classifier in half precision, with operators fused as a GPU runs them fastest.

Exact but for rounding: products that share an input become one product, and sums, norms and GELU
around products become ONNX Runtime's fused operators, which read and write each activation once.
Knows graphs, not networks. A row is one token of one image.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.functions import DOMAIN, attention
from export.rewriting import ORT_DOMAIN, array, constant, insert, is_linear, present, replace

_COLUMNS = 8  # 16-bit columns in one load of 16 bytes


def half(model: ir.Model) -> ir.Model:
    """A copy that computes in float16; inputs and outputs keep their types."""
    copy: ir.Model = ir.from_proto(convert_float_to_float16(ir.to_proto(model), keep_io_types=True))
    for node in list(copy.graph):
        if node.domain == DOMAIN:
            _widen(copy.graph, node)
            _pack(copy.graph, node)
        elif node.op_type == "Gelu":
            _with_bias(node)
        elif node.op_type == "LayerNormalization":
            _with_residual(copy.graph, node)
    RemoveUnusedNodesPass()(copy)
    copy.opset_imports[ORT_DOMAIN] = 1
    attention.add(copy)
    return copy


def _widen(graph: ir.Graph, attend: ir.Node) -> None:
    """Pad heads with zeros to a multiple of 8 columns, for tensor cores and wide loads."""
    heads, width = attend.attributes["keys"].as_ints()[2:]
    wide = -(-width // _COLUMNS) * _COLUMNS
    (use,) = attend.outputs[0].uses()
    before, behind = [_linear(value) for value in attend.inputs[:3]], use.node
    if wide == width or not all(before) or _linear(behind.outputs[0]) is not behind:
        return

    def widened(value: ir.Value | None, axis: int) -> ir.Value:
        content = array(value)
        rest = content.shape[:axis], content.shape[axis + 1 :]
        apart = content.reshape(*rest[0], heads, width, *rest[1])
        sides = [(0, wide - width if at == axis + 1 else 0) for at in range(apart.ndim)]
        padded = np.pad(apart, sides).reshape(*rest[0], heads * wide, *rest[1])
        return constant(graph, f"{present(value).name}.wide", padded)

    for layer in map(present, before):
        layer.outputs[0].shape = None  # no longer the traced one
        layer.replace_input_with(1, widened(layer.inputs[1], axis=1))
        if layer.op_type == "Gemm":
            layer.replace_input_with(2, widened(layer.inputs[2], axis=0))
    attend.outputs[0].shape = None
    behind.replace_input_with(1, widened(behind.inputs[1], axis=0))
    for name in ("queries", "keys"):
        shape = [*attend.attributes[name].as_ints()[:3], wide]
        attend.attributes.add(ir.AttrInt64s(name, shape))


def _pack(graph: ir.Graph, attend: ir.Node) -> None:
    """Compute queries, keys and values in one product, where they come from the same rows."""
    layers = [_linear(value) for value in attend.inputs[:3]]
    if [layer and layer.op_type for layer in layers] != ["Gemm", "MatMul", "MatMul"]:
        return
    q, k, v = map(present, layers)
    if q.inputs[0] is not k.inputs[0] or k.inputs[0] is not v.inputs[0]:
        return
    name = f"{attend.outputs[0].name}.qkv"
    weights = [array(layer.inputs[1]) for layer in (q, k, v)]
    weight = constant(graph, f"{name}.weight", np.concatenate(weights, axis=1))
    product = insert(attend, name, "MatMul", [q.inputs[0], weight])
    packed = insert(
        attend,
        f"{name}.attended",
        f"Packed{attend.op_type}",
        [product.outputs[0], q.inputs[2], *attend.inputs[3:]],
        DOMAIN,
        attend.attributes,
    )
    replace(attend, packed.outputs)


def _with_bias(gelu: ir.Node) -> None:
    """Fuse the bias of a linear layer with the GELU that follows."""
    layer = _with_own_bias(gelu.inputs[0])
    if layer is None:
        return
    name = str(gelu.outputs[0].name)
    product = insert(gelu, f"{name}.product", "MatMul", layer.inputs[:2])
    inputs = [product.outputs[0], layer.inputs[2]]
    replace(gelu, insert(gelu, f"{name}.biased", "BiasGelu", inputs, ORT_DOMAIN).outputs)


def _with_residual(graph: ir.Graph, norm: ir.Node) -> None:
    """Fuse a linear layer's bias, the sum with the residual stream, and the norm of the sum."""
    total = present(norm.inputs[0]).producer()
    if total is None or total.op_type != "Add" or len(norm.inputs) > 2:
        return
    skip, layer = total.inputs[0], _with_own_bias(total.inputs[1])
    if layer is None:
        return
    name = str(norm.outputs[0].name)
    gain = present(norm.inputs[1])
    shift = constant(graph, f"{name}.shift", np.zeros_like(array(gain)))
    product = insert(total, f"{name}.product", "MatMul", layer.inputs[:2])
    normed = insert(
        total,
        name,
        "SkipLayerNormalization",
        [product.outputs[0], skip, gain, shift, layer.inputs[2]],
        ORT_DOMAIN,
        {"epsilon": norm.attributes["epsilon"]},
        (".normed", ".mean", ".deviation", ".sum"),
    )
    for unused in normed.outputs[1:3]:
        unused.name = ""
    replace(total, normed.outputs[3:])
    replace(norm, normed.outputs[:1])


def _linear(value: ir.Value | None) -> ir.Node | None:
    """The linear layer that computes a value, or None."""
    node = present(value).producer()
    return node if node is not None and is_linear(node) else None


def _with_own_bias(value: ir.Value | None) -> ir.Node | None:
    """The linear layer with a bias that computes a value with one use, or None."""
    layer = _linear(value)
    alone = layer is not None and layer.op_type == "Gemm" and len(layer.outputs[0].uses()) == 1
    return layer if alone else None
