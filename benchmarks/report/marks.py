"""Marks of the report's figures, and room for their names: none covers another, or a mark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import hypot

from bloodedge.benchmarks.report.axes import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, cut

COLOURS = ("#3b82f6", "#e8833a", "#2fa36b", "#a06cd5", "#d64545", "#1aa5b8")
# Of what is not worth its name.
FAINT = 0.4
# How wide a letter is.
LETTER = 6.1
# The page's colour around the letters of a name, so that what it crosses does not disturb.
BACKGROUND = "var(--bg,#fff)"
_HALO = f"paint-order:stroke;stroke:{BACKGROUND};stroke-width:3px"
# As bad as being so much farther from the point.
_CROSSING = 25.0
_RADIUS = 5

# Left, top, right and bottom.
Box = tuple[float, float, float, float]


def mark(said: str, at: tuple[float, float], colour: int, bar: str = "", opacity: float = 1) -> str:
    """Return a dot which tells a pointer that rests on it what is said.

    Args:
        said: any text.
        at: the dot's middle.
        colour: the number of one of `COLOURS`; they repeat.
        bar: the path of a line in the same colour.
        opacity: of both.
    """
    fill = COLOURS[colour % len(COLOURS)]
    line = f'<path d="{bar}" stroke="{fill}"/>' if bar else ""
    return (
        f'<g opacity="{opacity:g}"><title>{escape(said)}</title>{line}'
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{_RADIUS}" fill="{fill}"/></g>'
    )


def around(places: Sequence[tuple[float, float]]) -> list[Box]:
    """Return the room that dots take."""
    far = _RADIUS + 1
    return [(px - far, py - far, px + far, py + far) for px, py in places]


def place_name(label: str, at: tuple[float, float], taken: list[Box], bars: list[Box]) -> str:
    """Write a point's name where nothing is yet, with a line to the point where it is far."""
    px, py = at
    label = cut(label, 48)
    width = LETTER * len(label)
    spots = _near(width)
    for far in range(24, 200, 13):
        spots += [(dx, dy) for dy in (4 - far, 4 + far) for dx in (9, -9 - width, -width / 2)]
    boxes = _boxes(at, spots, width)
    free = [i for i, box in enumerate(boxes) if _inside(box) and not _hits(box, taken)]
    # A name may cross an error bar, but no other name or point, and rather than be far away.
    costs = {i: _distance(boxes[i], at) + _CROSSING * _hits(boxes[i], bars) for i in free}
    chosen = min(costs, key=lambda i: costs[i], default=0)
    taken.append(boxes[chosen])
    left, top, _, bottom = boxes[chosen]
    line = ""
    if chosen >= len(_near(width)):
        near = bottom if bottom < py else top
        # To the nearest letter, or else it would run along under the name.
        end = min(max(px, left + 3), left + width - 3)
        line = f'<path d="M{px:.1f} {py:.1f}L{end:.1f} {near:.1f}" '
        line += 'stroke="currentColor" stroke-opacity=".4"/>'
    place = f'x="{left:.1f}" y="{bottom - 3:.1f}"'
    return f'{line}<text {place} style="{_HALO}" font-size="11">{escape(label)}</text>'


def place_faint_name(label: str, at: tuple[float, float], taken: list[Box], bars: list[Box]) -> str:
    """Write a name beside its point where nothing at all is in the way, else leave it out."""
    width = LETTER * len(label)
    boxes = _boxes(at, _near(width), width)
    box = next((b for b in boxes if _inside(b) and not _hits(b, [*taken, *bars])), None)
    if box is None:
        return ""
    taken.append(box)
    place = f'x="{box[0]:.1f}" y="{box[3] - 3:.1f}"'
    return f'<text {place} font-size="10" opacity="{FAINT + 0.15:.2f}">{escape(label)}</text>'


def _distance(box: Box, at: tuple[float, float]) -> float:
    """Return how far the nearest edge of a name is from its point."""
    x, y = min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3])
    return hypot(x - at[0], y - at[1])


def _near(width: float) -> list[tuple[float, float]]:
    spots = [(9.0, 4.0), (-9 - width, 4.0), (-width / 2, -11.0), (-width / 2, 20.0)]
    return spots + [(dx, dy) for dy in (-8.0, 16.0) for dx in (8.0, -8 - width)]


def _boxes(
    at: tuple[float, float], spots: Sequence[tuple[float, float]], width: float
) -> list[Box]:
    px, py = at
    return [(px + dx, py + dy - 10, px + dx + width, py + dy + 3) for dx, dy in spots]


def _inside(box: Box) -> bool:
    return (
        box[0] >= LEFT + 2 and box[2] <= WIDTH - 2 and box[1] >= TOP and box[3] <= HEIGHT - BOTTOM
    )


def _hits(box: Box, taken: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in taken
    )
