"""Random changes stay inside the pictures, repeat, and mix targets as they mix pixels."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from models.preprocess import Preprocessing
from models.size import Size
from models.training.augment import Augment, mixed
from models.training.draws import Draws, order
from models.training.photographs import as_served, decode, find
from models.training.recipe import Recipe
from tests.support.server import ROOT

CPU = torch.device("cpu")
RULE = Preprocessing(size=Size.of(32), crop_pct=1.0)
NOTHING = Recipe(
    crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, colour=0, greyscale=0, erasing=0, soften=0, mix=0
)


def draws(step: int = 0) -> Draws:
    return Draws(0, step, CPU)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middle of the explorer's photographs, as squares of one class."""
    folder = tmp_path_factory.mktemp("sample")
    for path in (ROOT / "service" / "web" / "samples").glob("*.jpg"):
        with Image.open(path) as picture:
            ImageOps.fit(picture, (200, 200)).save(folder / path.name)
    return folder


def test_without_changes_a_picture_is_the_one_that_is_served(samples: Path) -> None:
    files = find([samples])
    kept = decode(files, 256)
    whole = Augment(NOTHING, RULE)(kept.pixels, kept.sizes, draws())
    served = as_served(files, RULE).float() / 255
    assert whole.shape == served.shape
    # Bilinear without smoothing against bicubic with it: alike on the whole, not in each pixel.
    assert len(whole) > 1
    for one, other in zip(whole, served, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.85


def test_what_lies_beside_a_picture_on_its_canvas_is_never_shown() -> None:
    canvas = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    canvas[:, :, :41, :31] = 255  # a picture of 40 x 30, and its edge
    sizes = torch.tensor([[40.0, 30.0]]).expand(8, 2)
    recipe = NOTHING.model_copy(
        update={"crop_scale": (0.1, 1.0), "crop_ratio": (0.5, 2.0), "flip": 0.5}
    )
    for step in range(20):
        assert Augment(recipe, RULE)(canvas, sizes, draws(step)).min() > 1 - 1e-5


def test_a_step_repeats_and_another_differs() -> None:
    pixels = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    sizes = torch.full((4, 2), 48.0)
    augment = Augment(Recipe(), RULE)
    first, again, other = (augment(pixels, sizes, draws(step)) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_every_epoch_shows_each_picture_once_in_an_order_of_its_own() -> None:
    first, second = order(0, 0, 100), order(0, 1, 100)
    assert torch.equal(first.sort().values, torch.arange(100))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_softened_picture_has_lost_its_detail(share: float) -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    recipe = NOTHING.model_copy(update={"soften": share, "soften_to": (0.4, 0.5)})
    images = Augment(recipe, RULE)(pixels, torch.full((4, 2), 32.0), draws())
    detail = (images[..., 1:] - images[..., :-1]).abs().mean()
    assert (detail < 0.15) == bool(share)


def test_targets_are_mixed_as_pixels_are() -> None:
    """Images whose value is their class: its mean tells how much of each is in the mixture."""
    images = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 32, 32)
    targets = torch.eye(2)
    kinds = set()
    for step in range(40):
        found, shares = mixed(images, targets, Recipe(mix=0.9), draws(step))
        torch.testing.assert_close(found.mean(dim=(1, 2, 3)), shares[:, 1], atol=1e-3, rtol=0)
        whole = found.unique().tolist() == [0, 1]  # each pixel is of one image
        kinds.add("none" if shares.equal(targets) else "cutmix" if whole else "mixup")
    assert kinds == {"none", "cutmix", "mixup"}
