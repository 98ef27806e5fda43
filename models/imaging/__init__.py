"""Image files to upright RGB pictures: the one reader, for serving, reports and calibration.

Takes bytes that nobody has checked. Knows neither HTTP nor networks.
"""

from models.imaging.errors import (
    CostlyImage,
    DamagedImage,
    ImageError,
    OversizedImage,
    UnsupportedImage,
)
from models.imaging.reader import (
    COMMON_FORMATS,
    FORMATS,
    MAX_BYTES_PER_PIXEL,
    MAX_PIXELS,
    Reader,
)

__all__ = [
    "COMMON_FORMATS",
    "FORMATS",
    "MAX_BYTES_PER_PIXEL",
    "MAX_PIXELS",
    "CostlyImage",
    "DamagedImage",
    "ImageError",
    "OversizedImage",
    "Reader",
    "UnsupportedImage",
]
