"""Reading single fields of JSON that may come from anywhere: each has a type and bounds."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 1000
# Beyond it a float no longer tells neighbours apart.
MAX_COUNT = 1 << 53
# An hour: a longer inference is no measurement, and a number with 300 digits no cell of a table.
MAX_US = 3600e6
# No time, speed or share that somebody measured is smaller, and no axis of a plot reaches as far.
_LEAST = 1e-9


def text(values: Mapping[str, Any], key: str) -> str:
    """Return printable text of 1 to 1000 characters.

    Raises:
        ValueError: it is none.
    """
    value = values.get(key)
    # Not printable: an escape sequence would act on the terminal that shows the table.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise ValueError(f"`{key}` is not printable text of 1 to {MAX_TEXT} characters")
    return value


def flag(values: Mapping[str, Any], key: str) -> bool:
    """Return true or false.

    Raises:
        ValueError: it is neither.
    """
    value = values.get(key)
    if not isinstance(value, bool):
        raise ValueError(f"`{key}` is not true or false")
    return value


def count(values: Mapping[str, Any], key: str, *, least: int = 0, most: int = MAX_COUNT) -> int:
    """Return a whole number in `least`..`most`.

    Raises:
        ValueError: it is none.
    """
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"`{key}` is not a whole number in {least}..{most}")
    return value


def number(
    values: Mapping[str, Any], key: str, *, most: float = math.inf, least: float = _LEAST
) -> float:
    """Return a finite number in 0..`most`; 0, or at least `least`.

    Raises:
        ValueError: it is none, or so small that it was never measured.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{key}` is not a number")
    # The bound on the integer comes first: a huge one does not fit a float.
    if not 0 <= value <= most or not value <= sys.float_info.max:
        raise ValueError(f"`{key}` is not in 0..{most:g}")
    if 0 < value < least:
        raise ValueError(f"`{key}` is neither 0 nor at least {least:g}")
    return float(value)
