"""Axes, grid and words of the report's figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 62, 44
# How many letters fit on a line, and beside the vertical axis.
_FITS, _FITS_UP = 72, 44
# Values that differ by less, as a share of the largest or at all, are drawn as one.
_LEAST_SHARE, _LEAST_SPAN = 1e-9, 1e-300
# What is drawn above and below one value, as a share of it.
_MARGIN = 0.005

Scale = Callable[[float], float]


def cut(text: str, letters: int = _FITS) -> str:
    """Return a text that fits; what does not ends in an ellipsis."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def draw(parts: Sequence[str], title: str) -> str:
    """Return drawn parts as one SVG element."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def log_axis(values: Sequence[float], start: float, end: float) -> tuple[Scale, list[float]]:
    """Return where positive values lie between `start` and `end`, and ticks."""
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.12, 0.08 * (high - low))
    low, high = low - pad, high + pad
    ticks = log_ticks(low, high)
    return lambda v: start + (math.log10(v) - low) / (high - low) * (end - start), ticks


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; of a wide range only the powers."""
    steps = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def linear_axis(
    values: Sequence[float], start: float, end: float, pad: float = 0.06
) -> tuple[Scale, list[float]]:
    """Return where values lie between `start` and `end`, and some six ticks."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if high - low > max(_LEAST_SHARE * size, _LEAST_SPAN):
        margin = pad * (high - low)
    else:
        # One value. Half a unit more would be lost in the digits of a large one.
        margin = max(0.5, _MARGIN * size)
    low, high = low - margin, high + margin
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    first = math.ceil(low / step)
    ticks = [i * step for i in range(first, math.floor(high / step) + 1)]
    return lambda v: start + (v - low) / (high - low) * (end - start), ticks


def frame(
    title: str,
    x_label: str,
    y_label: str,
    x: Scale,
    x_ticks: Sequence[float],
    y: Scale,
    y_ticks: Sequence[float],
    subtitle: str = "",
) -> str:
    """Return grid, ticks, axis labels and title."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    grid = "".join(f"M{x(t):.1f} {TOP}V{bottom}" for t in x_ticks)
    grid += "".join(f"M{LEFT} {y(t):.1f}H{right}" for t in y_ticks)
    numbers = "".join(
        f'<text x="{x(t):.1f}" y="{bottom + 16}" '
        f'text-anchor="{"end" if x(t) > right - 16 else "middle"}">{_tick(t)}</text>'
        for t in x_ticks
    ) + "".join(
        f'<text x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_tick(t)}</text>'
        for t in y_ticks
    )
    middle = (LEFT + right) / 2
    below, beside = escape(cut(x_label)), escape(cut(y_label, _FITS_UP))
    return (
        f'<path d="{grid}" stroke="currentColor" stroke-opacity=".15"/>'
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>{numbers}'
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{below}</text>'
        f'<text x="14" y="{(TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + bottom) / 2})">{beside}</text>'
        f'<text x="{middle}" y="18" text-anchor="middle" font-weight="600">'
        f"{escape(cut(title))}</text>"
        f'<text x="{middle}" y="35" text-anchor="middle" font-size="11">'
        f"{escape(cut(subtitle))}</text>"
    )


def _tick(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:.10g}"[:6]
