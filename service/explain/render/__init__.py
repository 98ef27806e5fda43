"""Pictures (PNG) of maps and measures. Knows arrays and labels; nothing of models or HTTP.

Python's lock is held for the layout and the text alone: areas, curves and the file are the work of
NumPy and Pillow, so that other requests are answered meanwhile.
"""

from typing import Literal

Box = tuple[int, int, int, int]  # left, top, right, bottom; in pixels
Scale = Literal["map", "block", "all"]  # the maps that share one colour scale

SCALE_WORDS: dict[Scale, str] = {
    "map": "a scale for each map",
    "block": "a scale for each block",
    "all": "one scale for all",
}
