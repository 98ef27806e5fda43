"""The only evaluation transform: from a decoded picture to the pixels a network sees.

Free of torch, because the service uses it too. Mean and standard deviation are recorded here, but
applied inside the graph.
"""

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from models.arrays import Pixels
from models.size import Size

# Mean and standard deviation of ImageNet, the fields of `Preprocessing` that hold them.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# The same of CLIP's training.
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}

_MAX_ASPECT = 16


class Preprocessing(BaseModel):
    """How a picture becomes network input (the published values are in models/config.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Size = Field(
        description="of the network input in pixels: one number for a square, or height and width"
    )
    crop_pct: float = Field(
        default=0.9, ge=0.05, le=1, description="share of the resized shorter side that is kept"
    )
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] = "bicubic"
    resize_mode: Literal["shorter_side", "both_sides"] = Field(
        default="shorter_side", description="both_sides does not keep the image's proportions"
    )
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)

    @property
    def resize(self) -> Size:
        """What a picture is resized to cover before the centre crop, in pixels."""
        height, width = (int(side / self.crop_pct + 1e-9) for side in self.size)
        return Size(height, width)  # 224 / 0.875 is 256, however it is rounded


def preprocess(image: Image.Image, rule: Preprocessing) -> Pixels:
    """Resize to cover (or to match), then crop the centre: RGB picture to uint8 [H, W, 3].

    The result is bit for bit that of the training code: torchvision's for a square, timm's for
    any other input. Only pictures thinner than any photograph differ: their ends are cut off
    first, because one pixel by a million, resized whole, would take gigabytes.
    """
    if rule.resize_mode == "both_sides":
        size = rule.resize
    else:
        image = _without_ends(image, rule.resize)
        size = _covering(Size(image.height, image.width), rule.resize)
    if image.size != (size.width, size.height):
        filter_ = Image.Resampling[rule.interpolation.upper()]
        image = image.resize((size.width, size.height), filter_)
    if size != rule.size:
        top, left = (round((have - keep) / 2) for have, keep in zip(size, rule.size, strict=True))
        image = image.crop((left, top, left + rule.size.width, top + rule.size.height))
    return np.asarray(image, dtype=np.uint8)


def _covering(picture: Size, target: Size) -> Size:
    """The picture's size once it covers the target, its proportions kept."""
    if target.is_square:
        shorter = min(picture)
        return Size(*(target.side * side // shorter for side in picture))
    ratio = min(picture.height / target.height, picture.width / target.width)
    return Size(round(picture.height / ratio), round(picture.width / ratio))


def _without_ends(image: Image.Image, target: Size) -> Image.Image:
    """The middle of a picture, at most `_MAX_ASPECT` times as long as the part that is kept."""
    ratio = min(image.height / target.height, image.width / target.width)
    longest = Size(*(round(_MAX_ASPECT * ratio * side) for side in target))
    if image.height <= longest.height and image.width <= longest.width:
        return image
    top = max(0, (image.height - longest.height) // 2)
    left = max(0, (image.width - longest.width) // 2)
    right, bottom = min(image.width, left + longest.width), min(image.height, top + longest.height)
    return image.crop((left, top, right, bottom))
