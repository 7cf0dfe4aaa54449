"""How many pictures an image file holds: OpenCV reads the first and says nothing of the others."""

from __future__ import annotations

import struct

from bloodedge.tiff import pages

_PNG = b"\x89PNG\r\n\x1a\n"


def several(data: bytes) -> str | None:
    """Return what a file of several pictures is, such as `a GIF of 2 frames`; else None.

    The further pictures of a camera's JPEG (MPO) are its previews, and do not count.

    Args:
        data: a file of any kind that OpenCV could read.
    """
    if (count := pages(data)) > 1:
        return f"a TIFF of {count} pages"
    kind, count = "", 1
    if data.startswith(_PNG):
        kind, count = "PNG", _png_frames(data)
    elif data.startswith(b"GIF8"):
        kind, count = "GIF", _gif_frames(data)
    elif data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        kind, count = "WebP", _webp_frames(data)
    return f"a {kind} of {count} frames" if count > 1 else None


def _png_frames(data: bytes) -> int:
    """Return what an animation's header says, which must stand before the first pixels."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind, first = struct.unpack_from(">I4sI", data, at)
        if kind == b"acTL":
            return int(first)
        if kind == b"IDAT":
            break
        at += 12 + length
    return 1


def _webp_frames(data: bytes) -> int:
    at, frames = 12, 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        at += 8 + length + length % 2
    return frames


def _gif_frames(data: bytes) -> int:
    frames = 0
    try:
        at = 13 + _gif_colours(data[10])
        while (block := data[at]) in (0x21, 0x2C):
            if block == 0x2C:
                frames += 1
                at += 11 + _gif_colours(data[at + 9])
            else:
                at += 2
            # What a block holds comes in parts, the last of which is empty.
            while part := data[at]:
                at += 1 + part
            at += 1
    except IndexError:
        pass
    return frames


def _gif_colours(flags: int) -> int:
    """Return how many bytes the table of colours takes that flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
