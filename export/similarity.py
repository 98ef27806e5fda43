"""The measures of one stage's maps as one operator of the explain graph, and of tokens as another.

Each computes what cosines.py and measures.py define. The service's kernels process maps in pieces
that fit into the cache.
Shapes: L blocks, B images, H heads, N tokens, C width.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from export.functions import DOMAIN, VERSION
from models import measures
from models.cosines import Columns, row_similarity
from models.stages import map_measures


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
