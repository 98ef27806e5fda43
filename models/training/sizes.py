"""Smaller pictures in the first epochs, which cost less: progressive learning.

Tan & Le, "EfficientNetV2" (arXiv 2104.00298), section 4, without its change of augmentation.
Positions of a smaller grid lie between those that are learnt, of the full grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.size import Size
from models.training.photographs import Photographs
from models.training.recipe import Recipe

_BATCH = 256


def sides(recipe: Recipe, config: DeepViTConfig) -> list[int]:
    """Height and width of the pictures of each epoch, in pixels: whole patches.

    Raises `ValueError` where the recipe's first size is none that can grow to the network's.
    """
    full, patch = config.img_size.side, config.patch_size.side
    first = recipe.first_size or full
    if first > full or first % patch:
        raise ValueError(f"pictures of {first} px do not grow to {full} px by patches of {patch}")
    growing = recipe.full_size_from * (recipe.epochs - 1)
    return [
        full if epoch >= growing else first + int(epoch / growing * (full - first) / patch) * patch
        for epoch in range(recipe.epochs)
    ]


def positions(network: DeepViT, side: int) -> Tensor:
    """Of the tokens of pictures of another size: [1, N, C], by bilinear interpolation."""
    config = network.config
    if side == config.img_size.side:
        return network.pos_embed
    full, grid = (size // config.patch_size.side for size in (config.img_size.side, side))
    prefix, patches = network.pos_embed.split([config.prefix_tokens, full**2], dim=1)
    square = patches.transpose(1, 2).unflatten(2, (full, full))  # [1, C, full, full]
    square = F.interpolate(square, (grid, grid), mode="bilinear", antialias=True)
    return torch.cat((prefix, square.flatten(2).transpose(1, 2)), dim=1)


@torch.no_grad()
def resized(network: DeepViT, side: int) -> DeepViT:
    """A network for pictures of another size; all other weights are this one's own."""
    with torch.device("meta"):
        made = DeepViT(network.config.model_copy(update={"img_size": Size.of(side)}))
    weights = network.state_dict() | {"pos_embed": positions(network, side)}
    made.load_state_dict(weights, assign=True)
    return made.train(network.training)


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """Square pictures [n, 3, S, S], uint8, at another size."""
    if side == pixels.shape[-1]:
        return pixels
    found = pixels.new_empty((len(pixels), 3, side, side))
    for some, smaller in zip(pixels.split(_BATCH), found.split(_BATCH), strict=True):
        exact = F.interpolate(some.float(), side, mode="bicubic", antialias=True)
        smaller.copy_(exact.round_().clamp_(0, 255))
    return found


def shrunk_photographs(photographs: Photographs, share: float) -> Photographs:
    """Photographs whose canvases have a share of their side."""
    before = photographs.pixels.shape[-1]
    side = round(share * before)
    pixels = shrunk(photographs.pixels, side)
    return Photographs(pixels, photographs.sizes * (side / before), photographs.labels)
