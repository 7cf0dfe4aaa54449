"""The report's figures as small SVG images: text stays text, and they follow light and dark.

Lines and text take the page's colour (`currentColor`); only the marks have colours of their own,
chosen to be seen on white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

COLOURS = ("#3b82f6", "#e8833a", "#2fa36b", "#a06cd5", "#d64545", "#1aa5b8")
WIDTH, HEIGHT = 520, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 34, 44
_LETTER = 6.1
_MAX_POINTS = 400

Scale = Callable[[float], float]
Box = tuple[float, float, float, float]


class Figure(NamedTuple):
    """A figure as an SVG element; `curve` tells a run's learning curve from a comparison."""

    title: str
    svg: str
    curve: bool = False


@dataclass(frozen=True)
class Point:
    """One mark of a scatter plot, with an interval on the vertical axis."""

    label: str
    x: float
    y: float
    low: float
    high: float
    colour: int


def scatter(points: Sequence[Point], title: str, x_label: str, y_label: str) -> str:
    """Return a plot with a logarithmic horizontal axis, names and error bars."""
    x, x_ticks = _log_axis([p.x for p in points], _LEFT, WIDTH - _RIGHT)
    ys = [value for p in points for value in (p.low, p.high)]
    y, y_ticks = _linear_axis(ys, HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(title, x_label, y_label, x, x_ticks, y, y_ticks)]
    placed = [(x(p.x), y(p.y)) for p in points]
    taken: list[Box] = [(px - 6, py - 6, px + 6, py + 6) for px, py in placed]
    bars = [
        (px - 3, y(p.high), px + 3, y(p.low)) for p, (px, _) in zip(points, placed, strict=True)
    ]
    for p, (px, py) in zip(points, placed, strict=True):
        colour = COLOURS[p.colour % len(COLOURS)]
        parts.append(
            f'<path d="M{px:.1f} {y(p.low):.1f}V{y(p.high):.1f}" stroke="{colour}"/>'
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}"/>'
        )
    for p, at in sorted(zip(points, placed, strict=True), key=lambda pair: pair[1][1]):
        parts.append(_name(p.label, at, taken, bars))
    return _svg(parts, title)


def lines(series: Mapping[str, Sequence[float]], title: str, x_label: str, y_label: str) -> str:
    """Return a line plot of one value per epoch for each series."""
    values = [value for column in series.values() for value in column]
    epochs = max(len(column) for column in series.values())
    x, x_ticks = _linear_axis([1, max(epochs, 2)], _LEFT, WIDTH - _RIGHT, pad=0)
    y, y_ticks = _linear_axis(values, HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(title, x_label, y_label, x, x_ticks, y, y_ticks)]
    for index, (name, column) in enumerate(series.items()):
        step = max(1, len(column) // _MAX_POINTS)
        rises = column[-1] > column[0]
        # The corner that the lines leave free.
        height = HEIGHT - _BOTTOM - 10 - 16 * index if rises else _TOP + 20 + 16 * index
        dots = [(i + 1, column[i]) for i in range(0, len(column), step)]
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in dots)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[index]}" stroke-width="2"/>'
            f'<text x="{WIDTH - _RIGHT - 6}" y="{height}" '
            f'text-anchor="end" style="fill:{COLOURS[index]}">{escape(name)}</text>'
        )
    return _svg(parts, title)


def standalone(svg: str) -> str:
    """Return a figure as a file of its own, on white: a page's colours do not reach into it."""
    head, _, rest = svg.partition(">")
    namespace = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" color="#1a1a1a"')
    return f'{namespace}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def _log_axis(values: Sequence[float], start: float, end: float) -> tuple[Scale, list[float]]:
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.12, 0.08 * (high - low))
    low, high = low - pad, high + pad
    ticks = _log_ticks(low, high)
    return lambda v: start + (math.log10(v) - low) / (high - low) * (end - start), ticks


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; of a wide range only the powers."""
    steps = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _linear_axis(
    values: Sequence[float], start: float, end: float, pad: float = 0.06
) -> tuple[Scale, list[float]]:
    low, high = min(values), max(values)
    margin = pad * (high - low) or (0.0 if high > low else 0.5)
    low, high = low - margin, high + margin
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    first = math.ceil(low / step)
    ticks = [i * step for i in range(first, math.floor(high / step) + 1)]
    return lambda v: start + (v - low) / (high - low) * (end - start), ticks


def _frame(
    title: str,
    x_label: str,
    y_label: str,
    x: Scale,
    x_ticks: Sequence[float],
    y: Scale,
    y_ticks: Sequence[float],
) -> str:
    """Return grid, ticks, axis labels and title."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    grid = "".join(f"M{x(t):.1f} {_TOP}V{bottom}" for t in x_ticks)
    grid += "".join(f"M{_LEFT} {y(t):.1f}H{right}" for t in y_ticks)
    numbers = "".join(
        f'<text x="{x(t):.1f}" y="{bottom + 16}" '
        f'text-anchor="{"end" if x(t) > right - 16 else "middle"}">{_tick(t)}</text>'
        for t in x_ticks
    ) + "".join(
        f'<text x="{_LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_tick(t)}</text>'
        for t in y_ticks
    )
    middle = (_LEFT + right) / 2
    return (
        f'<path d="{grid}" stroke="currentColor" stroke-opacity=".15"/>'
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>{numbers}'
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="14" y="{(_TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + bottom) / 2})">{escape(y_label)}</text>'
        f'<text x="{middle}" y="18" text-anchor="middle" font-weight="600">{escape(title)}</text>'
    )


def _tick(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:.10g}"[:6]


def _name(label: str, at: tuple[float, float], taken: list[Box], bars: list[Box]) -> str:
    """Write a point's name where nothing is yet, with a line to the point where it is far."""
    px, py = at
    width = _LETTER * len(label)
    spots = [(9.0, 4.0), (-9 - width, 4.0), (-width / 2, -11.0), (-width / 2, 20.0)]
    for far in range(24, 200, 13):
        spots += [(dx, dy) for dy in (4 - far, 4 + far) for dx in (9, -9 - width, -width / 2)]
    boxes = [(px + dx, py + dy - 10, px + dx + width, py + dy + 3) for dx, dy in spots]
    free = [i for i, box in enumerate(boxes) if _inside(box) and not _hits(box, taken)]
    # In a crowd a name may cross an error bar, but no other name.
    chosen = next((i for i in free if not _hits(boxes[i], bars)), (free or [0])[0])
    taken.append(boxes[chosen])
    left, top, _, bottom = boxes[chosen]
    line = ""
    if chosen >= 4:
        near = bottom if bottom < py else top
        line = f'<path d="M{px:.1f} {py:.1f}L{left + width / 2:.1f} {near:.1f}" '
        line += 'stroke="currentColor" stroke-opacity=".4"/>'
    return f'{line}<text x="{left:.1f}" y="{bottom - 3:.1f}" font-size="11">{escape(label)}</text>'


def _inside(box: Box) -> bool:
    return box[0] >= _LEFT + 2 and box[2] <= WIDTH and box[1] >= _TOP and box[3] <= HEIGHT - _BOTTOM


def _hits(box: Box, taken: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in taken
    )
