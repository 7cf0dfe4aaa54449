"""What a TIFF's tags say that OpenCV does not heed, so that it would give wrong pixels."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_WHITE_IS_ZERO, _APART = 0, 2
# Byte order, then 42; BigTIFF, with 43, has wider fields.
_LAYOUTS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
_SHORT = 3


def misread(data: bytes, pixels: NDArray[Any]) -> str | None:
    """Return why the pixels that OpenCV made of a file are not what it shows; None if they are.

    Above 8 bits it takes channels that are stored one after the other for interleaved ones, and
    white for black where 0 is white. A fourth channel it multiplies into the colours, or not,
    whether that channel is transparency or anything else.

    Args:
        data: a file of any kind that OpenCV could read.
        pixels: `(H, W)` or `(H, W, C)`, as it gave them.
    """
    if data[:4] not in _LAYOUTS:
        return None
    tags = _short_tags(data)
    if tags.get(_BITS, 1) > 8:
        if tags.get(_PLANAR) == _APART:
            return "its channels are stored one after the other"
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            return "its values grow towards black"
    opaque = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] != opaque).any():
        return "it has a fourth channel"
    return None


def _short_tags(data: bytes) -> dict[int, int]:
    """Return the first value of each tag of 16-bit numbers in the first image's directory."""
    order, big = _LAYOUTS[data[:4]]
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, at)
        at += struct.calcsize(order + count)
        room = struct.calcsize(order + offset)
        found = {}
        for _ in range(min(entries, len(data))):
            tag, kind, values = struct.unpack_from(order + entry, data, at)
            at += struct.calcsize(order + entry)
            if kind == _SHORT:
                # More than fit in the entry stand elsewhere.
                (place,) = struct.unpack_from(order + offset, data, at)
                where = at if 2 * values <= room else place
                if where <= len(data) - 2:
                    (found[tag],) = struct.unpack_from(order + "H", data, where)
            at += room
    except (struct.error, OverflowError):
        return {}
    return found
