"""The only evaluation transform: from a decoded picture to the pixels a network sees.

Free of torch, because the service uses it too. Mean and standard deviation are recorded here, but
applied inside the graph.
"""

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from models.arrays import Pixels

# Mean and standard deviation of ImageNet, the fields of `Preprocessing` that hold them.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_MAX_ASPECT = 16


class Preprocessing(BaseModel):
    """How a picture becomes network input (the published values are in models/config.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(gt=0, description="height and width of the network input, in pixels")
    crop_pct: float = Field(
        default=0.9, gt=0, le=1, description="share of the resized shorter side that is kept"
    )
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] = "bicubic"
    resize_mode: Literal["shorter_side", "both_sides"] = Field(
        default="shorter_side", description="both_sides does not keep the image's proportions"
    )
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def resize(self) -> int:
        """Length of the shorter side before the centre crop, in pixels."""
        return int(self.size / self.crop_pct + 1e-9)  # 224 / 0.875 is 256, however it is rounded


def preprocess(image: Image.Image, rule: Preprocessing) -> Pixels:
    """Resize the shorter side (or both), then crop the centre: RGB picture to uint8 [S, S, 3].

    The result is bit for bit that of the training code. Only pictures thinner than any photograph
    differ: their ends are cut off first, because one pixel by a million, resized whole, would take
    gigabytes.
    """
    if rule.resize_mode == "both_sides":
        width = height = rule.resize
    else:
        image = _without_ends(image)
        shorter = min(image.size)
        width, height = (rule.resize * side // shorter for side in image.size)
    resized = image.resize((width, height), Image.Resampling[rule.interpolation.upper()])
    left, top = (round((side - rule.size) / 2) for side in (width, height))
    box = (left, top, left + rule.size, top + rule.size)
    return np.asarray(resized.crop(box), dtype=np.uint8)


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of a picture, at most `_MAX_ASPECT` times as long as it is wide."""
    longest = _MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image
    left, top = (max(0, (side - longest) // 2) for side in image.size)
    return image.crop(
        (left, top, min(image.width, left + longest), min(image.height, top + longest))
    )
