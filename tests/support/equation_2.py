"""Cosine similarity exactly as Eq. 2 is written: the slow reference for faster versions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.collapse import Variant

SHORTEST = 1e-18


def directions(maps: Tensor, variant: Variant = "column") -> Tensor:
    """Float64 unit vectors, one for each token; their products are cosines. [..., N, N]

    What is shorter than `SHORTEST` is shorter than 1 here, too.
    """
    maps = maps.double()
    axis = -1 if variant == "row" else -2
    if variant == "centred":
        maps = maps - maps.mean(dim=axis, keepdim=True)
    length = torch.linalg.vector_norm(maps, dim=axis, keepdim=True)
    unit: Tensor = maps / length.clamp_min(SHORTEST)
    return unit


def layer_similarity(blocks: Sequence[Tensor], variant: Variant) -> Tensor:
    """Similarity of each pair of L maps [B, H, N, N], mean over heads and tokens. [B, L, L]"""
    unit = torch.stack([directions(block, variant) for block in blocks])
    _, _, H, N, _ = unit.shape
    return torch.einsum("lbhqk,mbhqk->blm", unit, unit) / (H * N)


def neighbour_similarity(blocks: Sequence[Tensor]) -> Tensor:
    """Similarity of each block to the one before it, by head and token. [B, L - 1, H, N]"""
    unit = torch.stack([directions(block) for block in blocks], dim=1)
    return (unit[:, 1:] * unit[:, :-1]).sum(dim=-2)


def head_similarity(blocks: Sequence[Tensor]) -> Tensor:
    """Similarity of each pair of heads of a block, mean over tokens. [B, L, H, H]"""
    unit = torch.stack([directions(block) for block in blocks], dim=1)
    return torch.einsum("blgqk,blhqk->blgh", unit, unit) / unit.shape[-1]
