"""The operators of attention.py."""

import onnx_ir as ir

from export.functions import DOMAIN, define


def add(model: ir.Model) -> None:
    """Add the functions whose operators a model uses."""
    used = {node.op_type for node in model.graph if node.domain == DOMAIN}
    used |= {name.removeprefix("Packed") for name in used}
    define(model, [_FUNCTIONS[name] for name in sorted(used & _FUNCTIONS.keys())])


_BODY = """
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
