"""Random crops and changes of a batch of photographs, on the device where they lie.

Knows nothing of files and networks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.preprocess import Preprocessing
from models.training.draws import Draws
from models.training.recipe import Recipe

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ERASED = (0.02, 0.3)  # smallest and largest share of the area that is erased


class Augment:
    """Canvases and the sizes of the pictures on them, to images [B, 3, S, S] of values in 0..1."""

    def __init__(self, recipe: Recipe, rule: Preprocessing, size: int | None = None) -> None:
        """Images are `size` pixels high and wide, or as large as they are when served."""
        self._recipe = recipe
        self._mean = rule.mean
        self._size = size or rule.size.side

    def __call__(self, pixels: Tensor, sizes: Tensor, draws: Draws) -> Tensor:
        """uint8 [B, 3, side, side] and [B, 2] to float32 [B, 3, S, S]."""
        images = self._cropped(pixels.float() / 255, sizes, draws)
        images = self._coloured(self._softened(images, draws), draws)
        return self._erased(images, draws)

    def _cropped(self, canvases: Tensor, sizes: Tensor, draws: Draws) -> Tensor:
        """A random part of each picture, resized to S x S, and mirrored at random."""
        recipe, side, B = self._recipe, canvases.shape[-1], len(canvases)
        height, width = sizes.unbind(dim=1)
        area = draws.uniform(B, *recipe.crop_scale) * height * width
        low, high = (torch.tensor(ratio).log().item() for ratio in recipe.crop_ratio)
        ratio = draws.uniform(B, low, high).exp()
        h = (area / ratio).sqrt().minimum(height)
        w = (area * ratio).sqrt().minimum(width)
        top = draws.uniform(B) * (height - h)
        left = draws.uniform(B) * (width - w)
        mirror = torch.where(draws.uniform(B) < recipe.flip, -1.0, 1.0)
        zero = torch.zeros_like(h)
        # From output coordinates in -1..1 to those of the canvas.
        theta = torch.stack(
            [
                torch.stack([mirror * w / side, zero, (2 * left + w) / side - 1], dim=1),
                torch.stack([zero, h / side, (2 * top + h) / side - 1], dim=1),
            ],
            dim=1,
        )  # [B, 2, 3]
        grid = F.affine_grid(theta, [B, 3, self._size, self._size], align_corners=False)
        return F.grid_sample(canvases, grid, padding_mode="border", align_corners=False)

    def _softened(self, images: Tensor, draws: Draws) -> Tensor:
        """Some images shrunk and enlarged again, all to the same side.

        They are the first of a batch, whose order is random.
        """
        S = self._size
        side = max(1, round(S * draws.host.uniform(*self._recipe.soften_to)))
        count = draws.host.binomial(len(images), self._recipe.soften)
        if not count:
            return images
        soft = F.interpolate(images[:count], side, mode="bilinear", antialias=True)
        soft = F.interpolate(soft, S, mode="bicubic").clamp(0, 1)
        return torch.cat((soft, images[count:]))

    def _coloured(self, images: Tensor, draws: Draws) -> Tensor:
        """Brightness, contrast and saturation changed by up to `colour`; some without colour."""
        B, most = len(images), self._recipe.colour
        brightness, contrast, saturation = (
            draws.uniform(B, 1 - most, 1 + most)[:, None, None, None] for _ in range(3)
        )
        without = draws.uniform(B)[:, None, None, None] < self._recipe.greyscale
        saturation = torch.where(without, 0.0, saturation)
        grey = (images * _channels(_LUMA, images)).sum(dim=1, keepdim=True)  # [B, 1, S, S]
        mean = grey.mean(dim=(2, 3), keepdim=True)
        images = torch.lerp(grey, images, saturation)
        return (torch.lerp(mean, images, contrast) * brightness).clamp(0, 1)

    def _erased(self, images: Tensor, draws: Draws) -> Tensor:
        """A rectangle of some images in the mean colour."""
        B, S = len(images), self._size
        area = draws.uniform(B, *_ERASED)
        ratio = draws.uniform(B, -1, 1).exp()
        h, w = (area * ratio).sqrt().clamp(max=1) * S, (area / ratio).sqrt().clamp(max=1) * S
        chosen = draws.uniform(B) < self._recipe.erasing
        erased = _rectangles(S, h, w, draws) & chosen[:, None, None, None]
        return torch.where(erased, _channels(self._mean, images), images)


def mixed(images: Tensor, targets: Tensor, recipe: Recipe, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of a batch with itself in reverse order, or neither, with its targets.

    Images [B, 3, S, S], and targets [B, ...] in the same proportion.
    """
    chance = draws.host.random()
    if chance >= recipe.mix:
        return images, targets
    cut = chance < recipe.mix / 2
    alpha = recipe.cutmix_alpha if cut else recipe.mixup_alpha
    share = draws.host.beta(alpha, alpha)
    if cut:
        S = images.shape[-1]
        side = torch.tensor([S * (1 - share) ** 0.5], device=images.device)
        inside = _rectangles(S, side, side, draws)  # [1, 1, S, S]
        images = torch.where(inside, images.flip(0), images)
        share = 1 - inside.float().mean().item()
    else:
        images = torch.lerp(images.flip(0), images, share)
    return images, torch.lerp(targets.flip(0), targets, share)


def _rectangles(side: int, h: Tensor, w: Tensor, draws: Draws) -> Tensor:
    """Masks of rectangles [n] pixels high and wide, somewhere in side x side: [n, 1, S, S]."""
    top = draws.uniform(len(h)) * (side - h)
    left = draws.uniform(len(w)) * (side - w)
    at = torch.arange(side, device=h.device) + 0.5
    rows = (at >= top[:, None]) & (at < (top + h)[:, None])
    columns = (at >= left[:, None]) & (at < (left + w)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _channels(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).reshape(1, 3, 1, 1)
