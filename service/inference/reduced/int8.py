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

    What balances and rounds a layer's input is part of the layer.
    """
    producers = {name: node for node in graph.node for name in node.output}
    layers: dict[str, Int8Layer] = {}
    instead: dict[str, NodeProto | None] = {}  # by the first output of the node that goes
    for node in graph.node:
        if node.op_type != "MatMulIntegerToFloat":
            continue
        rounding = producers[node.input[0]]
        instead[rounding.output[0]] = None
        x, gain, shift = rounding.input[0], np.float32(1), np.float32(0)
        before = producers[x]
        if before.op_type == "LayerNormalization" and len(before.input) == 3:
            gain, shift = (constant(name) for name in before.input[1:])
            facts = attributes(before)
            instead[x] = helper.make_node(before.op_type, before.input[:1], [x], **facts)
        elif before.op_type == "Mul":
            centring = producers[before.input[0]]
            gain = constant(before.input[1])
            shift = -constant(centring.input[1]) * gain
            instead |= {x: None, centring.output[0]: None}
            x = centring.input[0]
        layers[node.output[0]] = _layer(node, gain, shift, constant)
        instead[node.output[0]] = helper.make_node("MatMul", [x, node.input[1]], node.output)
    nodes = (instead.get(node.output[0], node) for node in graph.node)
    return layers, [node for node in nodes if node is not None]


def _layer(node: NodeProto, gain: Any, shift: Any, constant: Constant) -> Int8Layer:
    """For x gain + shift, which is rounded to `zero` and a number of `step`s."""
    weight, step, steps, zero, _, bias = (constant(name) for name in node.input[1:])
    steps = step * steps
    return Int8Layer(
        weight,
        bias - steps * (zero * weight.sum(axis=0, dtype=np.float32)),
        steps,
        np.broadcast_to(gain / step, weight.shape[:1]).astype(np.float32),
        np.broadcast_to(shift / step + zero, weight.shape[:1]).astype(np.float32),
    )
