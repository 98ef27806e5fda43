"""Attention maps to PNG: one picture with labelled blocks and heads and one colour scale.

Knows arrays; matplotlib is loaded when the first picture is asked for.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.preprocess import Pixels
from service.errors import AnswerTooLarge

Array = npt.NDArray[np.float32]
Colours = npt.NDArray[np.float32]  # [..., 3], from 0 to 1

_PICTURE = 560  # pixels a side that a picture aims at
_PANEL = 72  # pixels a side of a panel, at least
_MAX_PIXELS = 30_000_000
_OPACITY = 0.65  # of a map over the picture it was made from
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 130, 60, 40  # margins in pixels
_MIN_WIDTH = 420
_DPI = 100


def render_maps(
    maps: Array,
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    background: Pixels | None = None,
) -> bytes:
    """Maps [rows, columns, h, w] as a grid of panels, over a picture [S, S, 3] if given.

    All panels share one scale: signed maps a diverging one centred on zero, others one that
    starts at zero. Nothing is smoothed. Raises `AnswerTooLarge`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    signed = bool(maps.min() < 0)
    largest = float(np.abs(maps).max()) or 1.0
    scale = ScalarMappable(
        Normalize(-largest if signed else 0, largest), "RdBu_r" if signed else "viridis"
    )
    side = _panel_side(maps.shape, background)
    panels: Colours = scale.to_rgba(maps)[..., :3].astype(np.float32)
    panels = _enlarge(panels, side)
    if background is not None:
        grey = _enlarge(background.mean(axis=-1, keepdims=True).astype(np.float32) / 255, side)
        panels = _OPACITY * panels + (1 - _OPACITY) * grey
    picture = _tile(panels)
    height, width = picture.shape[:2]
    across, down = max(_MIN_WIDTH, _LEFT + width + _RIGHT), _TOP + height + _BOTTOM
    figure = Figure(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)

    def place(left: int, wide: int) -> tuple[float, float, float, float]:
        return left / across, _BOTTOM / down, wide / across, height / down

    axes = figure.add_axes(place(_LEFT, width))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_yticks(_centres(height, len(rows)), rows)
    axes.set_xticks(_centres(width, len(columns)), columns)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    figure.text(0.02, 1 - 0.35 * _TOP / down, title, va="center", fontsize=9)
    figure.colorbar(scale, cax=figure.add_axes(place(_LEFT + width + 20, 14)))
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _panel_side(shape: tuple[int, ...], background: Pixels | None) -> int:
    """Pixels a side of one panel: a multiple of what it shows, so that no value is resampled."""
    rows, columns, height, _ = shape
    unit = height if background is None else math.lcm(height, background.shape[0])
    side = unit * max(1, round(max(_PANEL, _PICTURE / max(rows, columns)) / unit))
    if rows * columns * side**2 > _MAX_PIXELS:
        raise AnswerTooLarge(
            f"{rows} x {columns} maps do not fit one picture; ask for fewer layers or heads"
        )
    return side


def _enlarge(pixels: Colours, side: int) -> Colours:
    """Nearest-neighbour: [..., h, w, c] to [..., side, side, c]."""
    repeats = side // pixels.shape[-2]
    return pixels.repeat(repeats, axis=-3).repeat(repeats, axis=-2)


def _tile(panels: Colours) -> Colours:
    """[rows, columns, side, side, 3] to one picture with white lines between panels."""
    gap = 2 if panels.shape[0] * panels.shape[1] > 1 else 0
    padded = np.pad(panels, ((0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=1)
    rows, columns, height, width, _ = padded.shape
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def _centres(length: int, count: int) -> list[float]:
    return [(index + 0.5) * length / count - 0.5 for index in range(count)]
