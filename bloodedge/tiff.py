"""What a TIFF's tags say that OpenCV does not heed: wrong pixels, and pages behind the first."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC, _PLANAR = 254, 255, 258, 262, 284
_WHITE_IS_ZERO, _APART = 0, 2
# Bits of `_SUBFILE`: a smaller copy of another image, as scanners write, or what is seen of one.
_THUMBNAIL, _MASK = 1, 4
# And of the tag before it, which old programs write.
_OLD_THUMBNAIL = 2
# Byte order, then 42; BigTIFF, with 43, has wider fields.
_LAYOUTS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
# The kinds of numbers that are read.
_KINDS = {3: "H", 4: "I"}
# How many are looked at: a crafted file can have millions of directories, each with millions.
_MOST_PAGES, _MOST_TAGS = 1 << 16, 256


def pages(data: bytes) -> int:
    """Return how many pages a TIFF has; 1 for a file of another kind.

    A smaller copy of an image and a mask are no pages, unless they come first: that is what OpenCV
    reads. A page that is announced and not there counts: the file was cut short.
    """
    if data[:4] not in _LAYOUTS:
        return 1
    further = islice(_directories(data), 1, None)
    return 1 + sum(map(_is_page, further))


def _is_page(tags: dict[int, int]) -> bool:
    beside = tags.get(_SUBFILE, 0) & (_THUMBNAIL | _MASK)
    return not beside and tags.get(_OLD_SUBFILE) != _OLD_THUMBNAIL


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
    tags = next(_directories(data), {})
    if tags.get(_BITS, 1) > 8:
        if tags.get(_PLANAR) == _APART:
            return "its channels are stored one after the other"
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            return "its values grow towards black"
    opaque = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] != opaque).any():
        return "it has a fourth channel"
    return None


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield each image's tags of 16 and 32-bit numbers; a damaged image has none and is the last.

    Of each tag it is the first number.
    """
    order, big = _LAYOUTS[data[:4]]
    seen = {0}
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while at not in seen and len(seen) <= _MOST_PAGES:
            seen.add(at)
            tags, at = _read_tags(data, at)
            yield tags
    except (struct.error, OverflowError):
        yield {}


def _read_tags(data: bytes, at: int) -> tuple[dict[int, int], int]:
    """Return what the directory at a place holds, and the next one's place, 0 behind the last.

    Raises:
        struct.error: it ends behind the file.
        OverflowError: so does where it stands.
    """
    order, big = _LAYOUTS[data[:4]]
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(order + count)
    room = struct.calcsize(order + offset)
    end = at + entries * (struct.calcsize(order + entry) + room)
    found = {}
    for _ in range(min(entries, _MOST_TAGS)):
        tag, kind, values = struct.unpack_from(order + entry, data, at)
        at += struct.calcsize(order + entry)
        if kind in _KINDS:
            letter = order + _KINDS[kind]
            size = struct.calcsize(letter)
            # More than fit in the entry stand elsewhere.
            (place,) = struct.unpack_from(order + offset, data, at)
            where = at if size * values <= room else place
            if where <= len(data) - size:
                (found[tag],) = struct.unpack_from(letter, data, where)
        at += room
    # Some writers leave out what would follow the last.
    following = struct.unpack_from(order + offset, data, end)[0] if end + room <= len(data) else 0
    return found, following
