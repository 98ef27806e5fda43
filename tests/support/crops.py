"""Many small photographs out of the explorer's few samples, and what may become of pictures."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tests.support.server import ROOT

_SHARE = (0.3, 0.9)  # of the shorter side, that a crop shows


@cache
def _samples() -> tuple[Image.Image, ...]:
    files = sorted((ROOT / "service" / "web" / "samples").glob("*.jpg"))
    return tuple(Image.open(file).convert("RGB") for file in files)


def crops(count: int, seed: int, side: int = 32) -> Iterator[Image.Image]:
    """Random square parts of the samples, half of them mirrored, at `side` pixels."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        sample = _samples()[draw.integers(len(_samples()))]
        size = int(draw.uniform(*_SHARE) * min(sample.size))
        left, top = (int(draw.integers(length - size + 1)) for length in sample.size)
        crop = sample.crop((left, top, left + size, top + size)).resize((side, side))
        yield ImageOps.mirror(crop) if draw.random() < 0.5 else crop


def save(folder: Path, images: Iterator[Image.Image]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        image.save(folder / f"{index:04}.png")


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(float)
    noise = np.random.default_rng(pixels.astype(int).sum()).normal(0, 50, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


# What happens to the pictures of a service: a lens out of focus, a bad sensor, a lost rotation, a
# lost colour, a dark room. Each takes and gives a picture.
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.03 * min(image.size))),
    "noisy": _noisy,
    "rotated": lambda image: image.rotate(90, expand=True),
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "dark": lambda image: image.point([value // 3 for value in range(256)] * 3),
}
