"""The measures of one stage's maps as one operator of the explain graph, and of tokens as another.

Each operator is a function in the ONNX file itself, traced from cosines.py and measures.py, that
any runtime can run. The service replaces it by its own kernel (service/native), which processes
maps in pieces that fit into the cache.
Shapes: L blocks, B images, H heads, N tokens, C width.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export import tracing
from export.attention import DOMAIN, VERSION
from models import measures
from models.cosines import Columns, row_similarity
from models.manifest import map_measures


def measure(
    maps: Sequence[Tensor], reach: Tensor | None = None, prefix: int = 1
) -> dict[str, Tensor]:
    """All measures by name, from a map [B, H, N, N] of each block.

    A `reach` [N, N] (measures.reach) adds those that only softmax maps have.
    """
    if torch.onnx.is_in_onnx_export():
        return _operator(maps, reach, prefix)
    stacked = torch.stack(list(maps))
    found = _of_any(stacked)
    if reach is not None:
        found = (*found, *_of_softmax(stacked, reach, prefix))
    return dict(zip(_names(reach), found, strict=True))


def feature_similarity(outputs: Sequence[Tensor]) -> Tensor:
    """measures.feature_similarity of every block's output [B, N, C], to [B, L]."""
    if torch.onnx.is_in_onnx_export():
        (found,) = _node("FeatureSimilarity", outputs, [(outputs[0].shape[0], len(outputs))])
        return found
    return measures.feature_similarity(torch.stack(list(outputs), dim=1))


def add_functions(model: ir.Model) -> None:
    """Add the functions whose operators a model uses, for maps of its shapes."""
    _add(model, model.graph)


def _add(model: ir.Model, nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        if node.domain == DOMAIN and node.op_type.endswith("Similarity"):
            inputs = tuple(map(_example_shape, node.inputs))
            prefix = node.attributes["prefix"].as_int() if "prefix" in node.attributes else None
            function = _function(node.op_type, inputs, len(node.outputs), prefix)
            model.functions[function.identifier()] = function
            model.opset_imports[DOMAIN] = VERSION
            _add(model, function)


def _of_any(maps: Tensor) -> Sequence[Tensor]:
    """The measures that the maps of both stages have, from [L, B, H, N, N]."""
    columns = Columns(maps)
    return (
        columns.layer_similarity(),
        row_similarity(maps),
        columns.centred_similarity(),
        columns.neighbour_similarity(),
        columns.head_similarity(),
    )


def _of_softmax(maps: Tensor, reach: Tensor, prefix: int) -> Sequence[Tensor]:
    """The measures, [B, L, H] each, that only softmax maps have, from [L, B, H, N, N]."""
    distance = measures.attention_distance(maps, reach, prefix)  # [L, B, H]
    return measures.entropy(maps).transpose(0, 1), distance.transpose(0, 1)


def _operator(maps: Sequence[Tensor], reach: Tensor | None, prefix: int) -> dict[str, Tensor]:
    L, (B, H, N, _) = len(maps), maps[0].shape
    shapes = [(B, L, L)] * 3 + [(B, L - 1, H, N), (B, L, H, H)]
    if reach is None:
        outputs = _node("Similarity", maps, shapes)
    else:
        shapes += [(B, L, H)] * 2
        outputs = _node("SoftmaxSimilarity", (reach, *maps), shapes, prefix=prefix)
    return dict(zip(_names(reach), outputs, strict=True))


def _names(reach: Tensor | None) -> Iterable[str]:
    """The measures in the order of the operator's outputs."""
    return map_measures("reattention" if reach is None else "softmax")


def _node(
    name: str, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]], **attributes: int
) -> Sequence[Tensor]:
    """The outputs of a new node, of these shapes."""
    return torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}",
        inputs,
        {**attributes},
        dtypes=[inputs[0].dtype] * len(shapes),
        shapes=shapes,
        version=VERSION,
    )


class _Body(nn.Module):
    """The body of an operator: takes a tensor of each block, and a reach for softmax maps."""

    def __init__(self, name: str, prefix: int) -> None:
        super().__init__()
        self._name = name
        self._prefix = prefix

    def forward(self, blocks: list[Tensor], reach: Tensor | None = None) -> tuple[Tensor, ...]:
        if self._name == "FeatureSimilarity":
            return (measures.feature_similarity(torch.stack(blocks, dim=1)),)
        if reach is None:
            return tuple(_of_any(torch.stack(blocks)))
        # The operator of the other stage does most of it: tracing takes seconds.
        return (*measure(blocks).values(), *_of_softmax(torch.stack(blocks), reach, self._prefix))


@cache
def _function(
    name: str, inputs: tuple[tuple[int, ...], ...], outputs: int, prefix: int | None
) -> ir.Function:
    """The function of an operator for inputs of these shapes, and any batch size.

    Tracing it takes seconds; models of the same shapes share it. A `prefix` means that the first
    input is a reach.
    """
    prefixed = prefix is not None
    blocks = range(len(inputs) - prefixed)
    names = [f"block_{block}" for block in blocks]
    batch = torch.export.Dim("batch", min=1)
    examples: list[object] = [[torch.rand(inputs[-1]) for _ in blocks]]  # an input each
    shapes: dict[str, object] = {"blocks": [{0: batch} for _ in blocks]}
    if prefixed:
        names.append("reach")
        examples.append(torch.rand(inputs[0]))
        shapes["reach"] = None
    out = [f"out_{index}" for index in range(outputs)]
    model = tracing.trace(_Body(name, prefix or 0), tuple(examples), names, out, shapes)
    if prefixed:  # the reach comes first, because the number of blocks varies
        model.graph.inputs.insert(0, model.graph.inputs.pop())
    _keep_constants(model.graph)
    attributes = [ir.Attr("prefix", ir.AttributeType.INT, None)] if prefixed else []
    return ir.Function(DOMAIN, name, graph=model.graph, attributes=attributes)


def _example_shape(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of a value, for a batch of 2."""
    assert value is not None
    assert value.shape is not None
    return tuple(size if isinstance(size, int) else 2 for size in value.shape)


def _keep_constants(graph: ir.Graph) -> None:
    """Turn initializers, which a function cannot have, into nodes."""
    for value in list(graph.initializers.values()):
        assert value.const_value is not None
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)])
        node.outputs[0].name = f"{value.name}.constant"
        graph.insert_before(graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
    graph.initializers.clear()
