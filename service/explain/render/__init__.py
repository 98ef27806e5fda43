"""Pictures (PNG) of maps and measures. Knows arrays and labels; nothing of models or HTTP.

The modules in here import matplotlib, which takes half a second: import them when a picture is
first requested. Draw in a single thread, since matplotlib keeps global state.
"""

from typing import Literal

Scale = Literal["map", "block", "all"]  # the maps that share one colour scale

SCALE_WORDS: dict[Scale, str] = {
    "map": "a scale for each map",
    "block": "a scale for each block",
    "all": "one scale for all",
}
