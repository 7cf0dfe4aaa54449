"""The report's figures as small SVG images: text stays text, and they follow light and dark.

Lines and text take the page's colour (`currentColor`); only the marks have colours of their own,
chosen to be seen on white and on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple

from bloodedge.benchmarks.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    cut,
    draw,
    frame,
    linear_axis,
    log_axis,
)
from bloodedge.benchmarks.report.marks import (
    BACKGROUND,
    COLOURS,
    FAINT,
    LETTER,
    around,
    mark,
    place_faint_name,
    place_name,
)

_MAX_POINTS = 400
# More could not be read, and looking for room takes the longer the more there are.
_MAX_NAMES = 60


class Figure(NamedTuple):
    """A figure as an SVG element; `curve` tells a run's learning curve from a comparison."""

    title: str
    svg: str
    curve: bool = False


@dataclass(frozen=True)
class Point:
    """One mark of a scatter plot, with an interval on the vertical axis and the group's colour.

    What is not `ranked` is drawn, but beats nothing and is beaten by nothing.
    """

    label: str
    x: float
    y: float
    low: float
    high: float
    colour: int
    group: str = ""
    ranked: bool = True


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats: smaller x and larger y are better, one is enough."""
    return [p for p in points if not any(_beats(other, p) for other in points)]


def _beats(a: Point, b: Point) -> bool:
    return a.x <= b.x and a.y >= b.y and (a.x, a.y) != (b.x, b.y)


def scatter(
    points: Sequence[Point], title: str, x_label: str, y_label: str, subtitle: str = ""
) -> str:
    """Return a plot with a logarithmic horizontal axis and error bars.

    Pareto-optimal points are named and joined; the others are faint, and named where there is
    room, and to a pointer that rests on them. Where none is ranked all are named and none joined.
    """
    x, x_ticks = log_axis([p.x for p in points], LEFT, WIDTH - RIGHT)
    ys = [value for p in points for value in (p.low, p.high)]
    y, y_ticks = linear_axis(ys, HEIGHT - BOTTOM, TOP)
    parts = [frame(title, x_label, y_label, x, x_ticks, y, y_ticks, subtitle), _legend(points)]
    at = {id(p): (x(p.x), y(p.y)) for p in points}
    best = {id(p) for p in pareto([p for p in points if p.ranked]) or points}
    front = sorted((p for p in points if id(p) in best), key=lambda p: p.x)
    faint = [p for p in points if id(p) not in best]
    corners = [at[id(p)] for p in front if p.ranked]
    parts.append(_stairs(corners))
    parts += [_mark(p, at[id(p)], y, id(p) in best) for p in (*faint, *front)]
    taken = around(list(at.values()))
    bars = [(at[id(p)][0] - 3, y(p.high), at[id(p)][0] + 3, y(p.low)) for p in points]
    bars += [(px, py - 1, qx, py + 1) for (px, py), (qx, _) in pairwise(corners)]
    bars += [(qx - 1, qy, qx + 1, py) for (_, py), (qx, qy) in pairwise(corners)]
    for p in sorted(front, key=lambda p: at[id(p)][1])[:_MAX_NAMES]:
        parts.append(place_name(p.label, at[id(p)], taken, bars))
    room = max(0, _MAX_NAMES - len(front))
    parts += [place_faint_name(p.label, at[id(p)], taken, bars) for p in faint[:room]]
    return draw(parts, title)


def _mark(p: Point, at: tuple[float, float], y: Scale, best: bool) -> str:
    said = f"{p.label}: {p.y:.2f} % [{p.low:.2f}, {p.high:.2f}], {p.x:.4g}"
    bar = f"M{at[0]:.1f} {y(p.low):.1f}V{y(p.high):.1f}"
    return mark(said, at, p.colour, bar, 1 if best else FAINT)


def _stairs(corners: Sequence[tuple[float, float]]) -> str:
    """Return the line along the Pareto front: what is right of it and below is beaten."""
    steps = [f"H{qx:.1f}V{qy:.1f}" for _, (qx, qy) in pairwise(corners)]
    if not steps:
        return ""
    px, py = corners[0]
    return (
        f'<path d="M{px:.1f} {py:.1f}{"".join(steps)}" fill="none" stroke="currentColor" '
        'stroke-opacity=".35" stroke-dasharray="4 3"/>'
    )


def _legend(points: Sequence[Point]) -> str:
    """Return the groups with their colours, as many as fit on the line under the title."""
    groups = {p.group: COLOURS[p.colour % len(COLOURS)] for p in points if p.group}
    if len(groups) < 2:
        return ""
    parts, left = [], float(LEFT)
    for name, colour in groups.items():
        shown = cut(name, 24)
        width = 22 + LETTER * len(shown)
        if left + width > WIDTH - RIGHT:
            parts.append(f'<text x="{left:.1f}" y="{TOP - 9}" font-size="11">…</text>')
            break
        parts.append(
            f'<circle cx="{left + 5:.1f}" cy="{TOP - 13}" r="4" fill="{colour}"/>'
            f'<text x="{left + 13:.1f}" y="{TOP - 9}" font-size="11">{escape(shown)}</text>'
        )
        left += width
    return "".join(parts)


def lines(series: Mapping[str, Sequence[float]], title: str, x_label: str, y_label: str) -> str:
    """Return a line plot of one value per epoch for each series."""
    values = [value for column in series.values() for value in column]
    epochs = max(len(column) for column in series.values())
    x, x_ticks = linear_axis([1, max(epochs, 2)], LEFT, WIDTH - RIGHT, pad=0)
    y, y_ticks = linear_axis(values, HEIGHT - BOTTOM, TOP)
    parts = [frame(title, x_label, y_label, x, x_ticks, y, y_ticks)]
    for index, (name, column) in enumerate(series.items()):
        step = max(1, len(column) // _MAX_POINTS)
        rises = column[-1] > column[0]
        # The corner that the lines leave free.
        height = HEIGHT - BOTTOM - 10 - 16 * index if rises else TOP + 20 + 16 * index
        dots = [(i + 1, column[i]) for i in range(0, len(column), step)]
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in dots)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[index]}" stroke-width="2"/>'
            f'<text x="{WIDTH - RIGHT - 6}" y="{height}" '
            f'text-anchor="end" style="fill:{COLOURS[index]}">{escape(name)}</text>'
        )
    return draw(parts, title)


def standalone(svg: str) -> str:
    """Return a figure as a file of its own, on white: a page's colours do not reach into it."""
    head, _, rest = svg.partition(">")
    namespace = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" color="#1a1a1a"')
    rest = rest.replace(BACKGROUND, "#fff")
    return f'{namespace}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'
