"""Charts of lines and matrices as inline SVG, and of maps as inline PNG.

Knows numbers and their labels, not what they measure. The page's style colours the lines.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from PIL import Image

from models.arrays import Float64Array

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 10, 34
_CELLS = 216  # width of a matrix without its labels
_COLOURS = 256


@dataclass(frozen=True)
class Line:
    """One curve; `style` is a class of the page, which sets colour and dashes."""

    name: str
    style: str
    x: Sequence[int]
    y: Float64Array
    low: Float64Array | None = None
    high: Float64Array | None = None


@dataclass(frozen=True)
class Scale:
    """Colours for values from low to high; values beyond are clipped."""

    low: float
    high: float
    colours: str  # the name of a matplotlib colour map

    def indices(self, values: Float64Array) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        share = (np.nan_to_num(values) - self.low) / ((self.high - self.low) or 1)
        return (share.clip(0, 1) * (_COLOURS - 1)).round().astype(np.uint8)

    @property
    def table(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """[256, 3]"""
        entries = colormaps[self.colours](np.linspace(0, 1, _COLOURS))[:, :3]
        return np.asarray(entries * 255).round().astype(np.uint8)


class _Plane:
    """The coordinates of values in a chart."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self.first, self.last = across
        self.ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(*up)
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def x(self, value: float) -> float:
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (self.high - value) / (self.high - self.low)
        return round(_TOP + share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def level(self, value: float, style: str) -> Markup:
        return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            style, _LEFT, _WIDTH - _RIGHT, self.y(value), self.y(value)
        )

    def path(self, x: Sequence[int], y: Float64Array) -> str:
        return " ".join(f"{self.x(a)},{self.y(b)}" for a, b in zip(x, y, strict=True))


def lines(
    curves: Sequence[Line],
    label: str,
    limits: tuple[float, float] | None = None,
    rule: float | None = None,
    across: str = "block",
) -> Markup:
    """Curves, with their intervals as bands.

    The vertical axis includes `limits`; `rule` is a horizontal line such as a threshold.
    """
    values = np.concatenate([curve.y for curve in curves] + [np.asarray(limits or (), float)])
    values = values[np.isfinite(values)]
    plane = _Plane(
        (min(min(curve.x) for curve in curves), max(max(curve.x) for curve in curves)),
        (values.min(initial=np.inf), values.max(initial=-np.inf)) if len(values) else (0, 1),
    )
    parts = [*_axes(plane, across)]
    if rule is not None:
        parts.append(plane.level(rule, "rule"))
    for curve in curves:
        parts += _curve(plane, curve, across)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join(parts)
    )


def _axes(plane: _Plane, across: str) -> Iterator[Markup]:
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>')
    for tick in plane.ticks:
        yield plane.level(tick, "grid")
        yield text.format(_LEFT - 6, plane.y(tick) + 4, "end", f"{round(tick, 10):g}")
    for tick in MaxNLocator(8, integer=True).tick_values(plane.first, plane.last):
        if plane.first <= tick <= plane.last:
            yield text.format(plane.x(tick), _HEIGHT - _BOTTOM + 16, "middle", f"{tick:g}")
    yield text.format((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, "middle", across)


def _curve(plane: _Plane, curve: Line, across: str) -> Iterator[Markup]:
    there = np.flatnonzero(np.isfinite(curve.y)).tolist()
    x, y = [curve.x[i] for i in there], curve.y[there]
    low, high = (side if side is None else side[there] for side in (curve.low, curve.high))
    known = low is not None and high is not None and np.isfinite(low).all()
    if known and low is not None and high is not None:
        band = f"{plane.path(x, high)} {plane.path(x[::-1], low[::-1])}"
        yield Markup('<polygon class="band {}" points="{}"/>').format(curve.style, band)
    yield Markup('<polyline class="line {}" points="{}"/>').format(curve.style, plane.path(x, y))
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        told = f"{curve.name}, {across} {a}: {b:.4g}"
        if known and low is not None and high is not None:
            told += f" ({low[i]:.4g} to {high[i]:.4g})"
        yield Markup(
            '<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{}</title></circle>'
        ).format(curve.style, plane.x(a), plane.y(b), told)


def matrix(values: Float64Array, scale: Scale, label: str) -> Markup:
    """[L, L] as cells with their values as titles, block 0 at the top left."""
    L = len(values)
    side = _CELLS / L
    fills = scale.table[scale.indices(values)]
    cells = [
        Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.2f}" fill="#{}">'
            "<title>blocks {} and {}: {:.3f}</title></rect>"
        ).format(
            24 + q * side, p * side, side + 0.1, side + 0.1, bytes(fills[p, q]).hex(), p, q,
            values[p, q],
        )
        for p in range(L)
        for q in range(L)
    ]  # fmt: skip
    step = max(1, -(-L // 8))
    ticks = [
        Markup(
            '<text class="tick" x="20" y="{0:.1f}" text-anchor="end">{2}</text>'
            '<text class="tick" x="{1:.1f}" y="{3}" text-anchor="middle">{2}</text>'
        ).format((p + 0.5) * side + 4, 24 + (p + 0.5) * side, p, _CELLS + 14)
        for p in range(0, L, step)
    ]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _CELLS + 26, _CELLS + 20, label, Markup("").join(cells + ticks)
    )


def picture(values: Float64Array, scale: Scale, label: str) -> Markup:
    """[rows, columns], a pixel for each value."""
    image = Image.fromarray(scale.indices(values))
    image.putpalette(scale.table.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    encoded = base64.b64encode(file.getvalue()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(encoded, label)


def bar(scale: Scale) -> Markup:
    """The legend of a colour scale."""
    stops = ", ".join(f"#{bytes(entry).hex()}" for entry in scale.table[::15])
    marks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    return Markup(
        '<div class="bar"><div style="background: linear-gradient(to right, {})"></div>'
        "<span>{}</span><span>{}</span><span>{}</span></div>"
    ).format(stops, *(f"{mark:.3g}" for mark in marks))
