"""The only evaluation transform: a decoded picture to the pixels a network sees.

Free of torch, so that the service and the training-side code share it. Mean and
standard deviation are facts that travel here, but they are applied inside the graph.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

Pixels = npt.NDArray[np.uint8]


class Preprocessing(BaseModel):
    """How a picture becomes network input (paper.md section 5 for the published values)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(gt=0, description="height and width of the network input, in pixels")
    crop_pct: float = Field(
        default=0.9, gt=0, le=1, description="share of the resized shorter side that is kept"
    )
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def resize(self) -> int:
        """Length of the shorter side before the centre crop, in pixels."""
        return int(self.size / self.crop_pct)


def preprocess(image: Image.Image, rule: Preprocessing) -> Pixels:
    """Resize the shorter side, then crop the centre: RGB picture to uint8 [S, S, 3].

    Both steps are one resampling of the cropped region, so a picture of one pixel by
    a million costs no more than any other. The values equal resizing first.
    """
    width, height = image.size
    resized = [rule.resize * side // min(width, height) for side in (width, height)]
    left, top = (round((side - rule.size) / 2) for side in resized)
    across, down = width / resized[0], height / resized[1]
    box = (
        left * across,
        top * down,
        min((left + rule.size) * across, width),
        min((top + rule.size) * down, height),
    )
    filter_ = Image.Resampling[rule.interpolation.upper()]
    return np.asarray(image.resize((rule.size, rule.size), filter_, box=box), dtype=np.uint8)
