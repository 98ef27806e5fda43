"""The attention of one block as one operator of the exported graphs.

The service's kernel for it writes no attention maps to memory, or in the explain graph only the
requested ones.
Shapes: B images, M queries and N keys of each, H heads side by side in D = H * width columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from export.functions import DOMAIN, VERSION

# The types that torch.onnx.ops.symbolic_multi_out takes.
_Attribute = (
    int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, shape: tuple[int, int]) -> Tensor:
    """softmax(Q K^T) V for each head.

    Q [B * M, D], already scaled, and K and V [B * N, D] to [B * M, D]; `shape` is (M, N).
    """
    if torch.onnx.is_in_onnx_export():
        return _operator("Attention", (q, k, v), heads, shape)[-1]
    return join(softmax(q, k, heads, shape) @ split(v, heads, shape[1]))


def reattend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    offset: Tensor,
    shape: tuple[int, int],
) -> Tensor:
    """(theta softmax(Q K^T) + offset) V, theta [H, H] and offset [H] over heads (Eq. 3)."""
    if torch.onnx.is_in_onnx_export():
        return _operator("ReAttention", (q, k, v, theta, offset), len(theta), shape)[-1]
    maps = softmax(q, k, len(theta), shape)
    return mixed_values(mix(theta, maps), offset, split(v, len(theta), shape[1]))


def open_attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The softmax map, [B, H, M, N], and what `attend` gives."""
    if torch.onnx.is_in_onnx_export():
        maps, out = _operator("OpenAttention", (q, k, v), heads, shape, maps=1)
        return maps, out
    maps = softmax(q, k, heads, shape)
    return maps, join(maps @ split(v, heads, shape[1]))


def open_reattend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    offset: Tensor,
    shape: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax map and the mixed one (Eq. 3), [B, H, M, N] each, and what `reattend` gives."""
    if torch.onnx.is_in_onnx_export():
        inputs = (q, k, v, theta, offset)
        maps, mixed, out = _operator("OpenReAttention", inputs, len(theta), shape, maps=2)
        return maps, mixed, out
    maps = softmax(q, k, len(theta), shape)
    mixed = mix(theta, maps) + offset[:, None, None]
    return maps, mixed, join(mixed @ split(v, len(theta), shape[1]))


def softmax(q: Tensor, k: Tensor, heads: int, shape: tuple[int, int]) -> Tensor:
    """Q [B * M, D], already scaled, and K [B * N, D] to maps [B, H, M, N]."""
    M, N = shape
    return (split(q, heads, M) @ split(k, heads, N).transpose(-2, -1)).softmax(dim=-1)


def mix(theta: Tensor, maps: Tensor) -> Tensor:
    """Mix maps [B, H, M, N] over heads by theta [H out, H in]."""
    return (theta @ maps.flatten(2)).reshape(maps.shape)


def mixed_values(mixed: Tensor, offset: Tensor, values: Tensor) -> Tensor:
    """(mixed + offset) V. Maps [B, H, M, N], [H] and [B, H, N, width] to [B * M, D].

    The offset is the same at every position of a map, so it adds one vector for each head:
    offset * (sum of V over keys).
    """
    everywhere = offset[:, None, None] * values.sum(dim=-2, keepdim=True)
    return join(mixed @ values + everywhere)


def split(x: Tensor, heads: int, tokens: int) -> Tensor:
    """[B * N, D] to [B, H, N, width]."""
    return x.reshape(-1, tokens, heads, x.shape[-1] // heads).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """[B, H, N, width] to [B * N, D]."""
    _, H, _, width = x.shape
    return x.transpose(1, 2).reshape(-1, H * width)


def _operator(
    name: str, inputs: Sequence[Tensor], heads: int, shape: tuple[int, int], maps: int = 0
) -> Sequence[Tensor]:
    """The outputs of a new node: `maps` of them, then one of the shape of q.

    Maps come first because ONNX cannot leave the last output unnamed, as unused ones are.
    """
    q = inputs[0]
    entries = (q.shape[0] // shape[0], heads, *shape)
    attributes: dict[str, _Attribute] = {  # as split reshapes them
        name: [-1, tokens, heads, q.shape[-1] // heads]
        for name, tokens in zip(("queries", "keys"), shape, strict=True)
    }
    return torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}",
        inputs,
        attributes,
        dtypes=[q.dtype] * (maps + 1),
        shapes=[*[entries] * maps, q.shape],
        version=VERSION,
    )
