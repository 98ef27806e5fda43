"""Eq. 2 and its companions: cosines between the maps of blocks and of heads.

They are traced into the explain graph, and tests call them as they are. Shapes: L blocks, B images,
H heads, N tokens; a map is [query, key]. Vectors are not scaled to unit length. Lengths are divided
out of the products instead, because there are far fewer products than entries of maps.
"""

import torch
from torch import Tensor

# Below this length a vector's cosines go to 0 with it. Where attention is sharp, no query attends
# to some tokens: squares of the lengths of such columns leave the range of float32.
_SHORTEST = 1e-18
# What centring leaves of a column is rounding noise below this share of the column's length.
_NOISE = 1e-6


class Columns:
    """Columns A[:, t] over queries, as in Eq. 2: what token t gives to every token.

    Their cosine does not see which keys are attended where all queries attend alike, and is high
    for near-uniform maps. A column is kept as its mean and the deviation from it, which are
    orthogonal: for near-uniform maps, the difference between the products of whole columns and of
    means would be rounding noise.
    """

    def __init__(self, maps: Tensor) -> None:
        """Of maps [L, B, H, N, N]."""
        L, B, H, N, _ = maps.shape
        # One transposed matrix for each image: permuting all axes runs a slower kernel.
        columns = maps.reshape(L * B, H * N, N).transpose(1, 2).reshape(L, B, N, H, N)
        mean = columns.mean(dim=-1, keepdim=True)
        self._apart = columns - mean  # [L, B, N, H, queries]
        self._mean = N**0.5 * mean[..., 0].permute(1, 2, 3, 0)  # [B, N, H, L], of N entries
        self._products = _products(self._apart)  # [B, N, H, L, L]
        self._squares = _diagonal(self._products)
        self._unit = _inverse(self._squares + self._mean.square())

    def layer_similarity(self) -> Tensor:
        """Eq. 2 for every pair of blocks, the mean over heads and tokens: [B, L, L]."""
        return _mean_cosine(self._products, self._unit) + _mean_product(self._mean * self._unit)

    def centred_similarity(self) -> Tensor:
        """The same for columns minus their means: Pearson's correlation."""
        loud = self._squares > _NOISE**2 * (self._squares + self._mean.square())
        return _mean_cosine(self._products, torch.where(loud, _inverse(self._squares), 0))

    def neighbour_similarity(self) -> Tensor:
        """Eq. 2 for each block and the one before it, by head and token: [B, L - 1, H, N]."""
        means = self._mean[..., 1:] * self._mean[..., :-1]
        units = self._unit[..., 1:] * self._unit[..., :-1]
        cosines: Tensor = (_diagonal(self._products, below=1) + means) * units  # [B, N, H, L - 1]
        return cosines.permute(0, 3, 2, 1)

    def head_similarity(self) -> Tensor:
        """The same cosine between heads of one block (Fig. 3c), mean over tokens: [B, L, H, H]."""
        L, B, _, H, _ = self._apart.shape
        products = (self._apart @ self._apart.transpose(-2, -1)).flatten(0, 1)  # [L * B, N, H, H]
        unit, mean = (
            part.permute(3, 0, 1, 2).flatten(0, 1) for part in (self._unit, self._mean)
        )  # [L * B, N, H]
        cosines = _mean_cosine(products, unit) + _mean_product(mean * unit)
        return cosines.reshape(L, B, H, H).transpose(0, 1)


def row_similarity(maps: Tensor) -> Tensor:
    """The cosine of rows A[t, :] over keys: what token t takes from every token.

    Maps [L, B, H, N, N] to the mean over heads and tokens for every pair of blocks, [B, L, L].
    """
    products = _products(maps)  # [B, H, N, L, L]
    return _mean_cosine(products, _inverse(_diagonal(products)))


def _products(vectors: Tensor) -> Tensor:
    """Inner products of every pair of blocks. [L, B, .., .., N] to [B, .., .., L, L]"""
    return vectors.permute(1, 2, 3, 0, 4) @ vectors.permute(1, 2, 3, 4, 0)


def _diagonal(products: Tensor, below: int = 0) -> Tensor:
    """[.., L, L] to entries (i + below, i), [.., L - below]."""
    L = products.shape[-1]
    return products.flatten(-2)[..., below * L :: L + 1]


def _inverse(squares: Tensor) -> Tensor:
    """1 / length of vectors from squared lengths."""
    return squares.clamp_min(_SHORTEST**2).rsqrt()


def _mean_cosine(products: Tensor, unit: Tensor) -> Tensor:
    """Products [B, .., K, K] times 1 / length [B, .., K] of both sides, their mean to [B, K, K].

    A matrix product scales by one side's lengths and sums in one pass. It combines the lengths of
    every row with every row, and only the diagonal is kept: still faster than two passes.
    """
    B, K = products.shape[0], products.shape[-1]
    scaled = (products * unit[..., None, :]).reshape(B, -1, K * K)
    unit = unit.reshape(B, -1, K)
    sums = (unit.transpose(-2, -1) @ scaled).reshape(B, K * K, K)
    return sums[:, :: K + 1] / unit.shape[1]


def _mean_product(vectors: Tensor) -> Tensor:
    """The mean product of each pair: [B, .., K] to [B, K, K]."""
    flat = vectors.reshape(vectors.shape[0], -1, vectors.shape[-1])
    return flat.transpose(-2, -1) @ flat / flat.shape[1]
