"""A classifier whose linear layers compute in 8 bits, calibrated on pictures.

Knows graphs and arrays, not networks. Inputs of linear layers are rounded to uint8 with one scale
and zero point each, fixed at calibration, so that no image's answer depends on its batch. Weights
are rounded to int8 with one scale for each output. Attention's products, norms, GELU and the layer
that computes the logits stay in float32.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.rewriting import ORT_DOMAIN, array, constant, insert, is_linear, present, replace
from export.sessions import cpu_session
from models.arrays import Float32Array, Pixels

# Without VNNI, x86 adds pairs of products in 16 bits, which weights of 8 bits would overflow.
_WEIGHT_MAX = 63
_TINY = 1e-6


class Range(NamedTuple):
    """The smallest and largest value of each channel of an activation, [C] each."""

    low: Float32Array
    high: Float32Array


def calibrate(model: ir.Model, batches: Iterable[Pixels]) -> dict[str, Range]:
    """Ranges of linear layers' inputs, by the name of the value.

    The batches are images [B, height, width, 3].
    """
    watched = model.clone()
    graph = watched.graph
    inputs = [linears[0].input for linears in _linears(graph).values()]
    for value in inputs:
        axes = constant(graph, f"{value.name}.axes", np.array([0]))
        for operator in ("ReduceMin", "ReduceMax"):
            node = ir.node(operator, [value, axes], attributes={"keepdims": 0})
            node.outputs[0].name = f"{value.name}.{operator}"
            node.outputs[0].dtype = ir.DataType.FLOAT
            graph.append(node)
            graph.outputs.append(node.outputs[0])
    session = cpu_session(ir.to_proto(watched).SerializeToString())
    outputs = [output.name for output in session.get_outputs()][-2 * len(inputs) :]
    ranges: dict[str, Range] = {}
    for images in batches:
        values = session.run(outputs, {"images": images})
        for value, low, high in zip(inputs, values[::2], values[1::2], strict=True):
            before = ranges.get(str(value.name), Range(low, high))
            ranges[str(value.name)] = Range(
                np.minimum(before.low, low), np.maximum(before.high, high)
            )
    return ranges


def quantize(model: ir.Model, ranges: dict[str, Range]) -> ir.Model:
    """A copy whose linear layers compute in 8 bits, with the `ranges` that `calibrate` found."""
    copy = model.clone()
    graph = copy.graph
    for number, (name, layers) in enumerate(_linears(graph).items()):
        _quantize(graph, f"int8.{number}", layers, ranges[name])
    RemoveUnusedNodesPass()(copy)
    copy.opset_imports[ORT_DOMAIN] = 1
    return copy


class _Linear(NamedTuple):
    """input [rows, C] @ weight [C, out] + bias [out]: Gemm, or MatMul without a bias."""

    node: ir.Node

    @property
    def input(self) -> ir.Value:
        return present(self.node.inputs[0])

    @property
    def weight(self) -> Float32Array:
        return array(self.node.inputs[1])

    @property
    def bias(self) -> Float32Array:
        if self.node.op_type == "Gemm":
            return array(self.node.inputs[2])
        return np.zeros(self.weight.shape[1], np.float32)


def _linears(graph: ir.Graph) -> dict[str, list[_Linear]]:
    """All linear layers but the last, by the name of the input that they share."""
    layers = [_Linear(node) for node in graph if is_linear(node)]
    found: dict[str, list[_Linear]] = defaultdict(list)
    for layer in layers[:-1]:
        found[str(layer.input.name)].append(layer)
    return found


def _quantize(graph: ir.Graph, name: str, linears: list[_Linear], found: Range) -> None:
    """Replace the linear layers that share an input."""
    first = linears[0].node
    weights = np.concatenate([linear.weight for linear in linears], axis=1)
    value, centre, scale = _balance(graph, name, linears[0], found, weights)
    low = min(0.0, float(((found.low - centre) / scale).min()))
    high = max(0.0, float(((found.high - centre) / scale).max()))
    step = np.float32(max(high - low, _TINY) / 255)
    step_value = constant(graph, f"{name}.step", np.array(step))
    zero = constant(graph, f"{name}.zero", np.array(round(-low / step), np.uint8))
    rounded = insert(first, f"{name}.rounded", "QuantizeLinear", [value, step_value, zero])
    for number, linear in enumerate(linears):
        place = f"{name}.{number}"
        weight = linear.weight * scale[:, None]
        steps = np.maximum(np.abs(weight).max(axis=0), _TINY) / _WEIGHT_MAX  # [out]
        bias = linear.bias + centre @ linear.weight
        integers = np.rint(weight / steps).astype(np.int8)
        product = insert(
            linear.node,
            f"{place}.output",
            "MatMulIntegerToFloat",
            [
                rounded.outputs[0],
                constant(graph, f"{place}.weight", integers),
                step_value,
                constant(graph, f"{place}.steps", steps),
                zero,
                constant(graph, f"{place}.zeros", np.zeros(len(steps), np.int8)),
                constant(graph, f"{place}.bias", bias),
            ],
            ORT_DOMAIN,
        )
        replace(linear.node, product.outputs)


def _balance(
    graph: ir.Graph, name: str, linear: _Linear, found: Range, weights: Float32Array
) -> tuple[ir.Value, Float32Array, Float32Array]:
    """(input - centre) / scale, with both [C], so that channels have similar ranges.

    Exact before rounding: centre and scale are folded into the bias and the weights that follow
    (scale: SmoothQuant, Xiao et al. 2023; centre: Wei et al. 2023). After a LayerNorm it costs
    nothing. Outputs of GELU have a common lower bound and stay as they are.
    """
    value, producer = linear.input, linear.input.producer()
    assert producer is not None
    if producer.op_type == "Gelu":
        return value, np.zeros_like(found.low), np.ones_like(found.low)
    centre: Float32Array = np.mean(found, axis=0)
    reach = np.maximum((found.high - found.low) / 2, _TINY)
    scale = np.sqrt(reach / np.maximum(np.abs(weights).max(axis=1), _TINY))
    scale = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
    if producer.op_type == "LayerNormalization" and len(producer.inputs) == 2:  # folded: no shift
        gain = constant(graph, f"{name}.gain", array(producer.inputs[1]) / scale)
        shift = constant(graph, f"{name}.shift", -centre / scale)
        inputs = [present(producer.inputs[0]), gain, shift]
        attributes = producer.attributes
        balanced = insert(linear.node, f"{name}.norm", "LayerNormalization", inputs, "", attributes)
    else:
        middle = constant(graph, f"{name}.centre", centre)
        factor = constant(graph, f"{name}.factor", 1 / scale)
        centred = insert(linear.node, f"{name}.centred", "Sub", [value, middle])
        balanced = insert(linear.node, f"{name}.balanced", "Mul", [centred.outputs[0], factor])
    return balanced.outputs[0], centre, scale
