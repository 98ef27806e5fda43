"""What all pictures share: fonts, colours, and PNG files that are reproducible to the byte."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib.style
import numpy as np
import numpy.typing as npt
from cmcrameri import cm  # perceptually uniform colour maps, safe for colour-blind readers
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

INK = "#1a1a1a"
MUTED = "#5f5f5f"
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": MUTED,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # model names may contain dollar signs
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults with our style, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure; width and height are in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, header: Sequence[str]) -> bytes:
    """The same bytes for the same figure: the metadata has the header, but no time or version."""
    png = io.BytesIO()
    title, *lines = header
    metadata = {"Software": None, "Title": title, "Description": "\n".join(lines)}
    figure.savefig(png, format="png", metadata=metadata)
    return png.getvalue()


def colour_scale(largest: float, *, signed: bool) -> ScalarMappable:
    """Maps values to colours, from 0 to `largest`, or from its negative if `signed`."""
    limits = Normalize(-largest if signed else 0, largest)
    return ScalarMappable(limits, cm.vik if signed else "viridis")


def readable_on(colour: npt.ArrayLike) -> str:
    """Black or white, whichever has more contrast on an RGB colour."""
    luminance = float(np.asarray(colour)[:3] @ (0.2126, 0.7152, 0.0722))
    return "black" if luminance > 0.45 else "white"


def format_number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def draw_bar(figure: Figure, colours: ScalarMappable, axes: Axes, label: str) -> None:
    """A colour bar with numbers and a label."""
    bar = figure.colorbar(colours, cax=axes)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.6)
