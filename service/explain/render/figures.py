"""What all pictures have in common: type, colours, the way to a PNG that is the same every time."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib.style
import numpy as np
import numpy.typing as npt
from cmcrameri import cm  # Crameri's maps: uniform to the eye, also to a colour-blind one
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
    "text.parse_math": False,  # names are shown as they are, dollars too
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib as it comes, whatever the user's own configuration says, with our type."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, header: Sequence[str]) -> bytes:
    """The same bytes for the same figure: no time, no version in them, but the words above it."""
    png = io.BytesIO()
    title, *lines = header
    words = {"Title": title, "Description": "\n".join(lines)}
    figure.savefig(png, format="png", metadata={"Software": None} | words)
    return png.getvalue()


def scale(largest: float, *, signed: bool) -> ScalarMappable:
    """From zero, or centred on it: values to colours that are uniform to the eye."""
    limits = Normalize(-largest if signed else 0, largest)
    return ScalarMappable(limits, cm.vik if signed else "viridis")


def readable_on(colour: npt.ArrayLike) -> str:
    """Black or white, whichever stands out on an RGB colour."""
    luminance = float(np.asarray(colour)[:3] @ (0.2126, 0.7152, 0.0722))
    return "black" if luminance > 0.45 else "white"


def number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def bar(figure: Figure, colours: ScalarMappable, axes: Axes, label: str) -> None:
    """A colour bar with numbers and words."""
    drawn = figure.colorbar(colours, cax=axes)
    drawn.set_label(label, fontsize=7)
    drawn.ax.tick_params(labelsize=7)
    drawn.outline.set_linewidth(0.6)
