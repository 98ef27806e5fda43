"""The attention of one block as one operator of the exported graphs.

The operator is a function in the ONNX file itself, with a body of plain operators that any runtime
can run. The service replaces it by its own kernel (service/native), which writes no attention maps
to memory, or in the explain graph only the requested ones.
Shapes: B images, M queries and N keys of each, H heads side by side in D = H * width columns.
"""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

DOMAIN = "deepvit"
VERSION = 1
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


# attend and reattend as functions of ONNX.
_BODY = """
    <domain: "deepvit", opset_import: ["": 20]>
    %s <queries, keys> (%s) => (%s)
    {
        asking = Constant <value_ints: ints = @queries> ()
        asked = Constant <value_ints: ints = @keys> ()
        all = Shape (q)
        q_apart = Reshape (q, asking)
        k_apart = Reshape (k, asked)
        v_apart = Reshape (v, asked)
        Q = Transpose <perm = [0, 2, 1, 3]> (q_apart)
        K = Transpose <perm = [0, 2, 3, 1]> (k_apart)
        V = Transpose <perm = [0, 2, 1, 3]> (v_apart)
        scores = MatMul (Q, K)
        maps = Softmax <axis = -1> (scores)
        %s
        joined = Transpose <perm = [0, 2, 1, 3]> (attended)
        out = Reshape (joined, all)
    }
"""
_PLAIN = "attended = MatMul (maps, V)"
_MIXED = """
        flat = Constant <value_ints: ints = [0, 0, -1]> ()
        tokens = Constant <value_ints: ints = [2]> ()
        entries = Constant <value_ints: ints = [1, 2]> ()
        shape = Shape (maps)
        maps_flat = Reshape (maps, flat)
        mixed_flat = MatMul (theta, maps_flat)
        mixed = Reshape (mixed_flat, shape)
        moved = MatMul (mixed, V)
        values = ReduceSum <keepdims = 1> (V, tokens)
        shift = Unsqueeze (offset, entries)
        everywhere = Mul (shift, values)
        attended = Add (moved, everywhere)
"""
_MIXED_OPEN = """
        flat = Constant <value_ints: ints = [0, 0, -1]> ()
        entries = Constant <value_ints: ints = [1, 2]> ()
        shape = Shape (maps)
        maps_flat = Reshape (maps, flat)
        mixed_flat = MatMul (theta, maps_flat)
        unmoved = Reshape (mixed_flat, shape)
        shift = Unsqueeze (offset, entries)
        mixed = Add (unmoved, shift)
        attended = MatMul (mixed, V)
"""
# The same for queries, keys and values side by side, as one linear layer computes them.
_PACKED = """
    <domain: "deepvit", opset_import: ["": 20, "deepvit": 1]>
    Packed%s <queries, keys> (qkv, bias%s) => (out)
    {
        q, k, v = Split <axis = -1, num_outputs = 3> (qkv)
        asking = Add (q, bias)
        out = deepvit.%s <queries: ints = @queries, keys: ints = @keys> (asking, k, v%s)
    }
"""
_MIXING = ", theta, offset"
_FUNCTIONS = {
    "Attention": _BODY % ("Attention", "q, k, v", "out", _PLAIN),
    "ReAttention": _BODY % ("ReAttention", "q, k, v" + _MIXING, "out", _MIXED),
    "OpenAttention": _BODY % ("OpenAttention", "q, k, v", "maps, out", _PLAIN),
    "OpenReAttention": _BODY
    % ("OpenReAttention", "q, k, v" + _MIXING, "maps, mixed, out", _MIXED_OPEN),
    "PackedAttention": _PACKED % ("Attention", "", "Attention", ""),
    "PackedReAttention": _PACKED % ("ReAttention", _MIXING, "ReAttention", _MIXING),
}


def add_functions(model: ir.Model) -> None:
    """Add the functions whose operators a model uses."""
    used = {node.op_type for node in model.graph if node.domain == DOMAIN}
    used |= {name.removeprefix("Packed") for name in used}
    for name in sorted(used & _FUNCTIONS.keys()):
        function = ir.serde.deserialize_function(onnx.parser.parse_function(_FUNCTIONS[name]))
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = VERSION
