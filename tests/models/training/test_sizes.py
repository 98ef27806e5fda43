"""Small pictures first: sizes grow by patches, and positions of a small grid are those learnt."""

import copy

import pytest
import torch

from models.config import ARCHITECTURES
from models.training.forward import forward
from models.training.initialise import initialised
from models.training.photographs import Photographs
from models.training.recipe import Recipe
from models.training.sizes import positions, resized, shrunk, shrunk_photographs, sides

CONFIG = ARCHITECTURES["deepvit_patch16_112_re_attn_16b"].config.model_copy(
    update={"depth": 2, "reatten_blocks": (0, 1)}
)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, [112] * 6),
        ({"first_size": 64}, [64, 64, 80, 96, 112, 112]),
        ({"first_size": 80, "full_size_from": 1.0}, [80, 80, 80, 96, 96, 112]),
        ({"first_size": 64, "epochs": 1}, [112]),
    ],
    ids=["one size", "growing", "full at the end", "one epoch"],
)
def test_sizes_grow_to_the_full_one(recipe: dict[str, float], expected: list[int]) -> None:
    assert sides(Recipe(**{"epochs": 6} | recipe), CONFIG) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [72, 128])
def test_what_does_not_grow_to_the_full_size_is_refused(first: int) -> None:
    with pytest.raises(ValueError, match=f"{first} px do not grow to 112 px by patches of 16"):
        sides(Recipe(first_size=first), CONFIG)


def test_a_smaller_picture_is_answered_and_teaches_all_positions() -> None:
    network = initialised(CONFIG, seed=0).double().train()
    small = resized(copy.deepcopy(network), 64)
    assert small.config.num_tokens == 1 + 4**2
    images = torch.randn(3, 3, 64, 64, dtype=torch.double)
    found = forward(network, images)
    torch.testing.assert_close(found, small(images), rtol=1e-9, atol=1e-10)
    found.sum().backward()
    assert network.pos_embed.grad is not None
    assert (network.pos_embed.grad.abs().sum(dim=2) > 0).all()


def test_positions_keep_their_place() -> None:
    """A pattern that rises from left to right and falls from top to bottom still does."""
    network = initialised(CONFIG, seed=0)
    line = torch.linspace(-1, 1, 7)
    with torch.no_grad():
        network.pos_embed[0, 1:] = (line[None, :] - 3 * line[:, None]).reshape(-1, 1)
    assert positions(network, 112) is network.pos_embed
    small = positions(network, 64)
    assert torch.equal(small[:, :1], network.pos_embed[:, :1])
    grid = small[0, 1:, 0].detach().reshape(4, 4)
    assert (grid.diff(dim=1) > 0.2).all()
    assert (grid.diff(dim=0) < -0.6).all()


def test_pictures_shrink_with_the_canvases_that_they_lie_on() -> None:
    pixels = torch.zeros(2, 3, 160, 160, dtype=torch.uint8)
    pixels[:, :, :80, :120] = 200
    found = shrunk_photographs(
        Photographs(pixels, torch.tensor([[80.0, 120.0]] * 2), torch.zeros(2)), 0.5
    )
    assert found.pixels.shape == (2, 3, 80, 80)
    assert found.sizes.tolist() == [[40, 60]] * 2
    assert (found.pixels[:, :, :38, :58] == 200).all()
    assert not found.pixels[:, :, 42:].any()
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(80).expand(1, 3, 160, 160)
    smooth = shrunk(stripes, 64)[..., 8:-8]
    assert (smooth.float() - 127.5).abs().max() < 20  # finer than its pixels: grey, no moire
