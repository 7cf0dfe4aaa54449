"""The roofline as a figure: speed against MACs per byte, both logarithmic, under its roofs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from bloodedge.benchmarks.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    draw,
    frame,
    log_axis,
)
from bloodedge.benchmarks.report.figures import Figure
from bloodedge.benchmarks.report.marks import around, mark, place_name


class Roof(NamedTuple):
    """A limit: a speed in 1e9 MACs a second, and the bandwidth before it in 1e9 bytes a second."""

    label: str
    gmacs: float
    gb_s: float
    dashed: bool = False

    def at(self, intensity: float) -> float:
        """Return the limit in 1e9 MACs a second for MACs per byte."""
        return min(self.gmacs, self.gb_s * intensity)

    @property
    def ridge(self) -> float:
        """MACs per byte from which on arithmetic binds."""
        return self.gmacs / self.gb_s


class Mark(NamedTuple):
    """A model: MACs per byte, 1e9 MACs a second, and its family's colour."""

    label: str
    x: float
    y: float
    colour: int


def roofline_figure(
    place: str, roofs: Sequence[Roof], marks: Sequence[Mark], *, synthetic: bool = False
) -> Figure:
    """Return the figure of one device.

    Args:
        place: the device, for the line under the title.
        roofs: at least one.
        marks: the models.
        synthetic: whether the models' data were drawn by a program.
    """
    xs = [model.x for model in marks] + [roof.ridge for roof in roofs]
    x, x_ticks = log_axis([min(xs) / 2, max(xs) * 2], LEFT, WIDTH - RIGHT)
    left, right = min(xs) / 2, max(xs) * 2
    ys = [model.y for model in marks] + [roof.at(at) for roof in roofs for at in (left, right)]
    y, y_ticks = log_axis(ys, HEIGHT - BOTTOM, TOP)
    title = f"Roofline{' (synthetic)' if synthetic else ''}"
    axes = "multiply-accumulates per byte moved", "GMAC/s"
    parts = [frame(title, *axes, x, x_ticks, y, y_ticks, place)]
    parts += [_roof(roof, (left, right), x, y) for roof in roofs]
    at = [(x(model.x), y(model.y)) for model in marks]
    parts += [_dot(model, place_of) for model, place_of in zip(marks, at, strict=True)]
    taken = around(at)
    # The roofs' own names.
    taken += [(WIDTH - 150, y(r.gmacs) - 16, WIDTH, y(r.gmacs)) for r in roofs if not r.dashed]
    for model, place_of in zip(marks, at, strict=True):
        parts.append(place_name(model.label, place_of, taken, []))
    return Figure(title, draw(parts, title))


def _dot(model: Mark, at: tuple[float, float]) -> str:
    said = f"{model.label}: {model.y:.3g} GMAC/s at {model.x:.3g} MACs per byte"
    return mark(said, at, model.colour)


def _roof(roof: Roof, ends: tuple[float, float], x: Scale, y: Scale) -> str:
    left, right = ends
    points = [(at, roof.at(at)) for at in sorted({left, min(max(roof.ridge, left), right), right})]
    path = "L".join(f"{x(px):.1f} {y(py):.1f}" for px, py in points)
    dash = ' stroke-dasharray="4 3"' if roof.dashed else ""
    line = f'<path d="M{path}" fill="none" stroke="currentColor" stroke-opacity=".6"{dash}/>'
    if roof.dashed:
        place = f'x="{x(left) + 8:.1f}" y="{y(roof.at(left)) + 4:.1f}"'
        return f'{line}<text {place} font-size="11">{escape(roof.label)}</text>'
    name = escape(f"{roof.label}: {roof.gmacs:.3g} GMAC/s")
    return (
        f'{line}<text x="{WIDTH - RIGHT - 4}" y="{y(roof.gmacs) - 5:.1f}" font-size="11" '
        f'text-anchor="end">{name}</text>'
    )
