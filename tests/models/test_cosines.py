"""Cosines between maps against Eq. 2 as it is written, and the cases that mislead it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.arrays import Float64Array
from models.collapse import VARIANTS, Variant
from models.cosines import Columns, row_similarity
from tests.support import equation_2

L, B, H, N = 4, 2, 3, 10


def softmax_maps(deviation: float = 2.0, seed: int = 0) -> Tensor:
    """[L, B, H, N, N] with rows that sum to 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((L, B, H, N, N), generator=generator) * deviation).softmax(dim=-1)


SIGNED = torch.randn((L, B, H, N, N), generator=torch.Generator().manual_seed(1)) * 3
MAPS = {
    "softmax": softmax_maps(),
    "signed": SIGNED,
    "near-uniform": softmax_maps(0.01),
    "sharp": softmax_maps(60.0),  # columns as short as float32 can hold
}
every_kind = pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)


def layer_similarity(maps: Tensor, variant: Variant) -> Tensor:
    if variant == "row":
        return row_similarity(maps)
    columns = Columns(maps)
    return columns.layer_similarity() if variant == "column" else columns.centred_similarity()


@pytest.mark.parametrize("variant", VARIANTS)
@every_kind
def test_layer_similarity_is_the_mean_of_equation_2(maps: Tensor, variant: Variant) -> None:
    expected = equation_2.layer_similarity(list(maps), variant)
    found = layer_similarity(maps, variant)
    # Near-uniform maps are known to 7 digits, what stands out in them to 5.
    np.testing.assert_allclose(found, expected, atol=1e-5 if maps is not SIGNED else 2e-6)


@every_kind
def test_neighbour_similarity_is_equation_2_of_each_head_and_token(maps: Tensor) -> None:
    expected = equation_2.neighbour_similarity(list(maps))
    np.testing.assert_allclose(Columns(maps).neighbour_similarity(), expected, atol=2e-6)


@every_kind
def test_head_similarity_compares_heads_of_one_block(maps: Tensor) -> None:
    expected = equation_2.head_similarity(list(maps))
    np.testing.assert_allclose(Columns(maps).head_similarity(), expected, atol=2e-6)


def test_equation_2_is_a_cosine_of_two_columns() -> None:
    """The reference itself, on one pair of each kind."""
    p, q = softmax_maps()[:2, 0, 0].double().numpy()
    pairs: dict[Variant, tuple[Float64Array, Float64Array]] = {
        "column": (p[:, 3], q[:, 3]),
        "row": (p[3], q[3]),
        "centred": (p[:, 3] - p[:, 3].mean(), q[:, 3] - q[:, 3].mean()),
    }
    for variant, (a, b) in pairs.items():
        units = equation_2.directions(softmax_maps()[:2, 0, 0], variant)
        first, second = units[:, 3] if variant == "row" else units[..., 3]
        expected = a @ b / math.sqrt((a @ a) * (b @ b))
        assert (first @ second).item() == pytest.approx(expected, abs=1e-6)


def stripes(weights: Tensor) -> Tensor:
    """Every query attends alike: [1, 1, 1, N, N] with equal rows."""
    return (weights / weights.sum()).expand(1, 1, 1, len(weights), -1)


@pytest.mark.parametrize("tokens", [10, 197])
def test_trap_column_similarity_is_one_for_unrelated_stripes(tokens: int) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.cat([stripes(torch.rand(tokens, generator=generator) ** 4) for _ in range(2)])
    similarity = {v: layer_similarity(maps, v)[0, 0, 1].item() for v in VARIANTS}
    assert similarity["column"] == pytest.approx(1, abs=1e-6)
    assert similarity["row"] < 0.8
    assert similarity["centred"] == 0  # a constant column has no direction, and no noise shows


def test_trap_near_uniform_maps_look_alike_until_centred() -> None:
    generator = torch.Generator().manual_seed(4)
    maps = (torch.randn((2, 1, 8, 197, 197), generator=generator) * 0.25).softmax(dim=-1)
    similarity = {v: layer_similarity(maps, v)[0, 0, 1].item() for v in VARIANTS}
    assert similarity["column"] == pytest.approx(0.94, abs=0.01)
    assert similarity["centred"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("length", [1e-10, 1e-16, 1e-18, 1e-19, 3e-20, 1e-21, 1e-30, 1e-40])
def test_a_column_that_no_query_attends_to_is_finite_and_vanishes(length: float) -> None:
    maps = softmax_maps()
    maps[..., 2] *= length
    found = Columns(maps).neighbour_similarity()[..., 2]
    expected = equation_2.neighbour_similarity(list(maps))[..., 2]
    assert found.isfinite().all()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.abs().max() > 0.1) == (length >= equation_2.SHORTEST)


def test_an_empty_column_is_similar_to_nothing_and_spoils_nothing() -> None:
    maps = softmax_maps()
    maps[0, ..., 2] = 0
    columns = Columns(maps)
    found = columns.neighbour_similarity()
    assert (found[:, 0, :, 2] == 0).all()
    for measure in (found, columns.head_similarity(), columns.centred_similarity()):
        assert measure.isfinite().all()
