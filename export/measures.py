"""What the paper measures about attention, one definition each.

Traced into the explain graph and used as they stand in tests. Shapes: B images, L blocks,
H heads, N tokens (class token first), C width; a map is [.., query, key]. Maps of
different stages live on different scales: compare like with like.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Variant = Literal["column", "row", "centred"]
VARIANTS: tuple[Variant, ...] = ("column", "row", "centred")

# A vector shorter than this has no direction: its similarity to anything is 0.
_TINY = 1e-20
# Below this share of its own length, what centring leaves of a column is rounding noise.
_NOISE = 1e-6


def directions(maps: Tensor, variant: Variant = "column") -> Tensor:
    """Unit vectors whose inner products are cosines, one for each token t. [..., N, N]

    - column: A[:, t] over queries, as Eq. 2 has it: what token t gives to every token.
      Blind to which keys are attended when all queries attend alike, and inflated by
      near-uniform maps.
    - row: A[t, :] over keys: what token t takes from every token.
    - centred: the column less its mean, so a cosine of two is Pearson's correlation.
    """
    axis = -1 if variant == "row" else -2
    length = _norm(maps, axis)
    if variant == "centred":
        floor = length * _NOISE
        maps = maps - maps.mean(dim=axis, keepdim=True)
        length = _norm(maps, axis)
        length = torch.where(length > floor, length, torch.inf)
    return maps / length.clamp_min(_TINY)


def layer_similarity(units: Sequence[Tensor]) -> Tensor:
    """Eq. 2 for every pair of blocks, mean over heads and tokens.

    The `directions` of L blocks, [B, H, N, N] each, to [B, L, L]: a mean of cosines is one
    Gram product of flattened unit vectors for each head.
    """
    flat = torch.stack([unit.flatten(2) for unit in units], dim=2)  # [B, H, L, N * N]
    return (flat @ flat.transpose(-2, -1)).mean(dim=1) / units[0].shape[-1]


def cross_layer_similarity(p: Tensor, q: Tensor) -> Tensor:
    """Eq. 2: cosine of two blocks' maps, head by head and token by token.

    Their column `directions` [..., H, N, N] to [..., H, N].
    """
    return (p * q).sum(dim=-2)


def head_similarity(units: Tensor) -> Tensor:
    """Eq. 2's cosine between heads of one block (Fig. 3c), mean over tokens.

    Column `directions` [..., H, N, N] to [..., H, H].
    """
    flat = units.flatten(-2)  # [..., H, N * N]
    return flat @ flat.transpose(-2, -1) / units.shape[-1]


def feature_similarity(tokens: Tensor) -> Tensor:
    """Cosine of each block's output to the last one's (Fig. 4), mean over tokens.

    [B, L, N, C] to [B, L].
    """
    unit = tokens / _norm(tokens, -1).clamp_min(_TINY)
    return (unit * unit[:, -1:]).sum(dim=-1).mean(dim=-1)


def rank_residual(tokens: Tensor) -> Tensor:
    """What sets tokens apart, as a share of all they are: |X - mean| / |X|, Frobenius norms.

    Each block's output [B, L, N, C] to [B, L]. From 0 (all tokens alike: rank one) to 1.
    """
    apart = tokens - tokens.mean(dim=-2, keepdim=True)
    length = _norm(tokens, (-2, -1)).clamp_min(_TINY)
    return (_norm(apart, (-2, -1)) / length)[..., 0, 0]


def token_similarity(tokens: Tensor) -> Tensor:
    """Cosine between the tokens of one block's output, mean over pairs: over-smoothing.

    [B, L, N, C] to [B, L]: the squared length of the sum of unit vectors holds every pair
    twice, and each vector with itself.
    """
    N = tokens.shape[-2]
    unit = tokens / _norm(tokens, -1).clamp_min(_TINY)
    pairs = unit.sum(dim=-2).square().sum(dim=-1) - unit.square().sum(dim=(-2, -1))
    return pairs / (N * (N - 1))


def entropy(softmax: Tensor) -> Tensor:
    """Shannon entropy of each query's attention in nats, mean over queries.

    [..., H, N, N] to [..., H].
    From 0 (one key) to log N (all alike). Softmax stage only.
    """
    return -(softmax * softmax.clamp_min(_TINY).log()).sum(dim=-1).mean(dim=-1)


def attention_distance(softmax: Tensor, patch_size: int, prefix: int = 1) -> Tensor:
    """How far patches look, in input pixels: attention-weighted distance between patch centres.

    The `prefix` tokens before the patches are left out as queries and as keys, and the rest of
    each row rescaled to 1; mean over queries. [..., H, N, N] to [..., H]. Softmax stage only.
    """
    grid = round((softmax.shape[-1] - prefix) ** 0.5)
    centres = torch.cartesian_prod(*[torch.arange(grid, dtype=torch.float32) * patch_size] * 2)
    distance = _norm(centres[:, None] - centres, -1)[..., 0]  # [N - P, N - P]
    patches = softmax[..., prefix:, prefix:]
    share = patches / patches.sum(dim=-1, keepdim=True).clamp_min(_TINY)
    return (share * distance).sum(dim=-1).mean(dim=-1)


def rollout(so_far: Tensor | None, softmax: Tensor) -> Tensor:
    """Attention rollout: the product over blocks of (mean over heads + identity) / 2.

    One more block's maps [B, H, N, N] on the product so far [B, N, N]; rows sum to 1.
    Softmax stage only.
    """
    step = (softmax.mean(dim=1) + torch.eye(softmax.shape[-1])) / 2
    return step if so_far is None else step @ so_far


def _norm(vectors: Tensor, axis: int | tuple[int, int]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=axis, keepdim=True)
    return length
