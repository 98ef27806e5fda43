"""The measures of maps and tokens other than the cosines of Eq. 2, each defined once.

They are traced into the explain graph, and tests call them as they are. Shapes: B images, L blocks,
H heads, N tokens (class token first), C width; a map is [.., query, key]. Maps of different stages
have different scales and should not be compared.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.size import Size

_TINY = 1e-20  # a vector shorter than this has no direction: its similarity to anything is 0


def feature_similarity(tokens: Tensor) -> Tensor:
    """Cosine of each block's output to that of the last block (Fig. 4), mean over tokens.

    [B, L, N, C] to [B, L].
    """
    length = tokens.square().sum(dim=-1).sqrt().clamp_min(_TINY)  # [B, L, N]
    products = (tokens * tokens[:, -1:]).sum(dim=-1)
    return (products / length / length[:, -1:]).mean(dim=-1)


def rank_residual(tokens: Tensor) -> Tensor:
    """How much the tokens X of a block's output differ: |X - mean| / |X|, in Frobenius norms.

    [B, L, N, C] to [B, L], from 0 (all tokens are equal, so X has rank one) to 1.
    """
    apart = tokens - tokens.mean(dim=-2, keepdim=True)
    length = _norm(tokens, (-2, -1)).clamp_min(_TINY)
    return (_norm(apart, (-2, -1)) / length)[..., 0, 0]


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine between pairs of tokens of one block's output, which measures over-smoothing.

    [B, L, N, C] to [B, L]. The squared length of the sum of unit vectors contains every pair
    twice, and each vector with itself.
    """
    N = tokens.shape[-2]
    unit = tokens / _norm(tokens, -1).clamp_min(_TINY)
    pairs = unit.sum(dim=-2).square().sum(dim=-1) - unit.square().sum(dim=(-2, -1))
    return pairs / (N * (N - 1))


def entropy(softmax: Tensor) -> Tensor:
    """Shannon entropy of each query's attention in nats, mean over queries.

    [..., H, N, N] to [..., H], from 0 (a single key) to log N (uniform). Softmax stage only.
    """
    return -(softmax * softmax.clamp_min(_TINY).log()).sum(dim=-1).mean(dim=-1)


def attention_distance(softmax: Tensor, reach: Tensor, prefix: int = 1) -> Tensor:
    """Attention-weighted distance between patch centres in input pixels, mean over queries.

    [..., H, N, N], and the `reach` [N, N] between tokens, to [..., H]. The `prefix` tokens before
    the patches are left out as queries and as keys, and the rest of each row is rescaled to sum
    to 1. Softmax stage only.
    """
    far = (softmax * reach).sum(dim=-1)  # [..., H, N]
    patches = softmax[..., prefix:].sum(dim=-1)
    return (far / patches.clamp_min(_TINY))[..., prefix:].mean(dim=-1)


def reach(grid: Size, patch_size: Size, prefix: int = 1) -> Tensor:
    """Pixels between patch centres, [N, N]; 0 to and from the `prefix` tokens before them."""
    rows, columns = (torch.arange(count, dtype=torch.float32) for count in grid)
    centres = torch.cartesian_prod(rows * patch_size.height, columns * patch_size.width)
    distance = _norm(centres[:, None] - centres, -1)[..., 0]  # [N - P, N - P]
    return F.pad(distance, (prefix, 0, prefix, 0))


def rollout(so_far: Tensor | None, softmax: Tensor) -> Tensor:
    """Attention rollout: the product over blocks of (mean over heads + identity) / 2.

    Multiplies the product so far [B, N, N] by the next block's maps [B, H, N, N]; rows sum to 1.
    Softmax stage only.
    """
    step = (softmax.mean(dim=1) + torch.eye(softmax.shape[-1])) / 2
    return step if so_far is None else step @ so_far


def _norm(vectors: Tensor, axis: int | tuple[int, int]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=axis, keepdim=True)
    return length
