"""Linear layers in 8 bits: as exports have them, and as the kernels want them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, helper

from models.arrays import Float32Array
from service.inference.reduced.anatomy import Constant, attributes
from service.inference.reduced.layers import Array, even, in_panels, padded

_QUAD = 4  # numbers in a word
_INPUTS = 7  # of a layer: rows, weight, step, steps, zero, zeros of weights, bias


@dataclass(frozen=True)
class Int8Layer:
    """Rounds x scale + offset to uint8, multiplies, and returns sums times steps plus the bias."""

    precision: ClassVar[str] = "Int8"

    weight: npt.NDArray[np.int8]  # [in, out]
    bias: Float32Array  # [out]
    steps: Float32Array  # [out]
    scale: Float32Array  # [in]
    offset: Float32Array  # [in]

    def packed(self) -> dict[str, Array]:
        """Weights as words [in / 4, out] of four neighbours along the axis that is summed.

        All are padded with zeros.
        """
        rows, columns = self.weight.shape
        beside = padded(columns) - columns
        weight = np.pad(self.weight, ((0, -rows % _QUAD), (0, beside)))
        quads = weight.reshape(-1, _QUAD, padded(columns)).transpose(0, 2, 1)
        words = np.ascontiguousarray(quads).view("<u4")[..., 0].astype(np.uint32)
        wide = {"bias": self.bias, "steps": self.steps}
        deep = {"scale": self.scale, "offset": self.offset}
        return {
            "panels": in_panels(words),
            **{name: np.pad(values, (0, beside)) for name, values in wide.items()},
            **{name: np.pad(values, (0, padded(rows) - rows)) for name, values in deep.items()},
        }

    def times(self, factor: np.float32) -> "Int8Layer":
        return replace(self, bias=self.bias * factor, steps=self.steps * factor)

    def beside(self, others: "Sequence[Int8Layer]") -> "Int8Layer":
        """Of layers that also round their input alike."""
        layers = (self, *others)
        return replace(
            self,
            weight=np.concatenate([one.weight for one in layers], axis=1),
            bias=np.concatenate([one.bias for one in layers]),
            steps=np.concatenate([one.steps for one in layers]),
        )

    def with_even_columns(self, heads: int) -> "Int8Layer":
        weight, bias, steps = (even(one, heads) for one in (self.weight, self.bias, self.steps))
        return replace(self, weight=weight, bias=bias, steps=steps)

    def with_even_rows(self, heads: int) -> "Int8Layer":
        scale, offset = even(self.scale, heads), even(self.offset, heads)
        return replace(self, weight=even(self.weight.T, heads).T, scale=scale, offset=offset)

    def with_rows(self, rows: int) -> "Int8Layer":
        padding = rows - len(self.weight)
        return replace(
            self,
            weight=np.pad(self.weight, ((0, padding), (0, 0))),
            scale=np.pad(self.scale, (0, padding)),
            offset=np.pad(self.offset, (0, padding)),
        )

    @property
    def columns(self) -> int:
        return len(self.bias)


def dequantized(
    graph: GraphProto, constant: Constant
) -> tuple[Mapping[str, Int8Layer], list[NodeProto]]:
    """The layers in 8 bits by their output, and nodes as if these were in float32.

    What balances and rounds a layer's input is part of the layer. One that exports do not write is
    left as it is.
    """
    producers = {name: node for node in graph.node for name in node.output}
    layers: dict[str, Int8Layer] = {}
    instead: dict[str, NodeProto | None] = {}  # by the first output of the node that goes
    for node in graph.node:
        if node.op_type != "MatMulIntegerToFloat" or len(node.input) != _INPUTS:
            continue
        rounding = producers.get(node.input[0])
        if rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        x, balancing, gone = _balancing(rounding, producers, constant)
        values = [constant(name) for name in node.input[1:]]
        if any(one is None for one in (*balancing, *values)):
            continue
        layers[node.output[0]] = _layer(values, *balancing)
        instead |= gone
        instead[rounding.output[0]] = None
        instead[node.output[0]] = helper.make_node("MatMul", [x, node.input[1]], node.output)
    nodes = (instead.get(node.output[0], node) for node in graph.node)
    return layers, [node for node in nodes if node is not None]


def _balancing(
    rounding: NodeProto, producers: Mapping[str, NodeProto], constant: Constant
) -> tuple[str, tuple[Any, Any], dict[str, NodeProto | None]]:
    """What is rounded is x gain + shift: x, both of them, and what becomes of the nodes."""
    x = rounding.input[0]
    before = producers.get(x)
    if before is not None and before.op_type == "LayerNormalization" and len(before.input) == 3:
        norm = helper.make_node(before.op_type, before.input[:1], [x], **attributes(before))
        return x, (constant(before.input[1]), constant(before.input[2])), {x: norm}
    centring = producers.get(before.input[0]) if before and before.op_type == "Mul" else None
    if before is not None and centring is not None and centring.op_type == "Sub":
        gain, centre = constant(before.input[1]), constant(centring.input[1])
        shift = None if gain is None or centre is None else -centre * gain
        return centring.input[0], (gain, shift), {x: None, centring.output[0]: None}
    return x, (np.float32(1), np.float32(0)), {}


def _layer(values: Sequence[Any], gain: Any, shift: Any) -> Int8Layer:
    """For x gain + shift, which is rounded to `zero` and a number of `step`s."""
    weight, step, steps, zero, _, bias = values
    steps = step * steps
    return Int8Layer(
        weight,
        bias - steps * (zero * weight.sum(axis=0, dtype=np.float32)),
        steps,
        np.broadcast_to(gain / step, weight.shape[:1]).astype(np.float32),
        np.broadcast_to(shift / step + zero, weight.shape[:1]).astype(np.float32),
    )
