"""What is measured of maps and tokens, against plain float64 NumPy."""

import itertools
import math
from functools import reduce

import numpy as np
import pytest
import torch

from models import measures
from models.arrays import Float64Array
from models.size import Size

B, L, H, GRID = 2, 4, 3, 3
N = GRID**2 + 1


def softmax_maps(scale: float = 2.0, seed: int = 0) -> Float64Array:
    """[B, L, H, N, N] with rows that sum to 1."""
    logits = np.random.default_rng(seed).normal(0, scale, (B, L, H, N, N))
    maps: Float64Array = np.exp(logits)
    maps /= maps.sum(axis=-1, keepdims=True)
    return maps


def cosine(p: Float64Array, q: Float64Array) -> float:
    return float(p @ q / math.sqrt((p @ p) * (q @ q)))


def tensor(array: Float64Array) -> torch.Tensor:
    return torch.from_numpy(array).float()


def test_feature_similarity_compares_with_the_last_block() -> None:
    tokens = np.random.default_rng(2).normal(size=(B, L, N, 5))
    expected = np.array(
        [
            [
                np.mean([cosine(tokens[b, p, t], tokens[b, -1, t]) for t in range(N)])
                for p in range(L)
            ]
            for b in range(B)
        ]
    )
    np.testing.assert_allclose(
        measures.feature_similarity(tensor(tokens)).numpy(), expected, atol=2e-6
    )


def test_rank_residual_is_what_sets_tokens_apart() -> None:
    tokens = np.random.default_rng(5).normal(1, 1, (B, L, N, 5))
    apart = tokens - tokens.mean(axis=2, keepdims=True)
    expected = np.sqrt((apart**2).sum(axis=(2, 3)) / (tokens**2).sum(axis=(2, 3)))
    np.testing.assert_allclose(measures.rank_residual(tensor(tokens)).numpy(), expected, atol=2e-6)
    alike = tensor(np.broadcast_to(tokens[:, :, :1], tokens.shape).copy())
    assert measures.rank_residual(alike).max() < 1e-6


def test_token_similarity_is_the_mean_cosine_of_pairs() -> None:
    tokens = np.random.default_rng(6).normal(0.3, 1, (B, L, N, 5))
    pairs = list(itertools.combinations(range(N), 2))
    expected = np.array(
        [[np.mean([cosine(x[s], x[t]) for s, t in pairs]) for x in image] for image in tokens]
    )
    found = measures.token_similarity(tensor(tokens)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_entropy_runs_from_one_key_to_all_alike() -> None:
    maps = softmax_maps()
    expected = -(maps * np.log(maps)).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(measures.entropy(tensor(maps)).numpy(), expected, atol=2e-6)
    one_key = torch.eye(N).expand(1, 1, 1, N, N)
    assert measures.entropy(one_key).item() == 0
    uniform = torch.full((1, 1, 1, N, N), 1 / N)
    assert measures.entropy(uniform).item() == pytest.approx(math.log(N), abs=1e-6)


def test_attention_distance_is_in_input_pixels() -> None:
    maps = softmax_maps()
    patch = 16
    places = [(row * patch, column * patch) for row in range(GRID) for column in range(GRID)]
    expected = np.zeros((B, L, H))
    for query, (y, x) in enumerate(places):
        distances = np.array([math.hypot(y - v, x - u) for v, u in places])
        share = maps[..., 1 + query, 1:]
        expected += (share * distances).sum(axis=-1) / share.sum(axis=-1) / len(places)
    reach = measures.reach(Size.of(GRID), Size.of(patch))
    found = measures.attention_distance(tensor(maps), reach).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    registers = torch.nn.functional.pad(tensor(maps), (2, 0, 2, 0), value=0.5)
    beyond = measures.reach(Size.of(GRID), Size.of(patch), prefix=3)
    more = measures.attention_distance(registers, beyond, prefix=3).numpy()
    np.testing.assert_allclose(more, found, rtol=2e-6)
    itself = torch.eye(N).expand(1, 1, 1, N, N)
    assert measures.attention_distance(itself, reach).item() == 0


def test_rollout_multiplies_block_by_block_and_keeps_rows_at_one() -> None:
    maps = softmax_maps()
    expected = np.broadcast_to(np.eye(N), (B, N, N))
    for block in range(L):
        expected = (maps[:, block].mean(axis=1) / 2 + np.eye(N) / 2) @ expected
    found = reduce(measures.rollout, tensor(maps).unbind(1), None)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(dim=-1), 1, atol=1e-6)
