"""TIFFs whose tags OpenCV does not heed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from bloodedge.errors import DataError
from bloodedge.images import decode_image
from bloodedge.tiff import pages

SIDE = 16
RGB = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
DEEP = RGB.astype(np.uint16) * 257


def tiff(pixels: Any, big: str = "", order: str = "<", **changed: int) -> bytes:
    """Return an uncompressed TIFF of one strip (a channel each, if planar), with other tags."""
    apart = changed.get("planar") == 2
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    strips = channels if apart else 1
    stored = np.moveaxis(pixels, 2, 0) if apart else pixels
    data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    start, bits = (16 if big else 8), pixels.dtype.itemsize * 8
    size = len(data) // strips
    tags: dict[int, list[int]] = {
        256: [SIDE], 257: [SIDE], 258: [bits] * channels, 259: [1],
        262: [changed.get("photometric", 2 if channels > 1 else 1)],
        273: [start + size * i for i in range(strips)],
        277: [channels], 278: [SIDE], 279: [size] * strips,
        284: [changed.get("planar", 1)],
    }  # fmt: skip
    if channels == 4:
        tags[338] = [changed.get("extra", 2)]
    room, count, offset = (8, "Q", "Q") if big else (4, "H", "I")
    entry = "HHQ" if big else "HHI"
    at = start + len(data)
    beyond = at + struct.calcsize("<" + count) + len(tags) * (room + struct.calcsize("<" + entry))
    beyond += room
    entries, extra = b"", b""
    for tag, values in tags.items():
        # Places and sizes are 32-bit numbers, everything else 16-bit ones.
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > room:
            place = struct.pack(order + offset, beyond + len(extra))
            extra += packed
        else:
            place = packed.ljust(room, b"\0")
        entries += struct.pack(order + entry, tag, kind, len(values)) + place
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = mark + (struct.pack(order + "HH", 8, 0) if big else b"")
    head += struct.pack(order + offset, at)
    directory = struct.pack(order + count, len(tags)) + entries + b"\0" * room
    return head + data + directory + extra


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", ["", "big"])
def test_usual_tiffs_are_read(big: str, order: str) -> None:
    opaque = np.full((SIDE, SIDE, 1), 65535, np.uint16)
    for pixels in (RGB, DEEP, np.dstack([DEEP, opaque])):
        got = decode_image(tiff(pixels, big, order), SIDE, "x")
        np.testing.assert_array_equal(got, RGB)
    # In 8 bits OpenCV puts them in place.
    np.testing.assert_array_equal(decode_image(tiff(RGB, big, order, planar=2), SIDE, "x"), RGB)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", ["", "big"])
@pytest.mark.parametrize(
    ("pixels", "changed", "reason"),
    [
        (DEEP, {"planar": 2}, "stored one after the other"),
        (DEEP[..., 0], {"photometric": 0}, "grow towards black"),
        (np.dstack([RGB, RGB[..., :1]]), {"extra": 2}, "fourth channel"),
        (np.dstack([RGB, RGB[..., :1] * 0]), {"extra": 0}, "fourth channel"),
        (np.dstack([DEEP, DEEP[..., :1]]), {"extra": 1}, "fourth channel"),
    ],
)
def test_what_opencv_would_misread_is_refused(
    pixels: Any, changed: dict[str, int], reason: str, big: str, order: str
) -> None:
    with pytest.raises(DataError, match=rf"x cannot be read as it is meant: .*{reason}.* as PNG"):
        decode_image(tiff(pixels, big, order, **changed), SIDE, "x")


def test_a_tag_that_points_outside_costs_no_other() -> None:
    data = bytearray(tiff(DEEP, "big", planar=2))
    (at,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, at)
    (rows,) = (e for e in range(at + 8, at + 8 + 20 * count, 20) if data[e : e + 2] == b"\x16\x01")
    # Nobody knows this one; its nine numbers would be far behind the end.
    struct.pack_into("<HHQQ", data, rows, 700, 3, 9, 2**63 + 1)
    with pytest.raises(DataError, match="stored one after the other"):
        decode_image(bytes(data), SIDE, "x")


def stack(first: bytes, *kinds: int) -> bytes:
    """Return a TIFF with its directory again for each of `kinds`, which says what an image is."""
    order, big = ("<" if first[:2] == b"II" else ">"), first[2:4] in (b"+\0", b"\0+")
    offset, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    data, link = bytearray(first), 8 if big else 4
    (at,) = struct.unpack_from(order + offset, data, link)
    (entries,) = struct.unpack_from(order + count, data, at)
    end = at + struct.calcsize(order + count) + entries * struct.calcsize(order + entry)
    own = data[at + struct.calcsize(order + count) : end]
    for kind in kinds:
        struct.pack_into(order + offset, data, end, len(data))
        value = struct.pack(order + "I", kind).ljust(struct.calcsize(order + offset), b"\0")
        data += struct.pack(order + count, entries + 1)
        data += struct.pack(order + entry[:-1], 254, 4, 1) + value + own
        end = len(data)
        data += bytes(struct.calcsize(order + offset))
    return bytes(data)


PAGE, THUMBNAIL, MASK = 2, 1, 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", ["", "big"])
def test_a_stack_is_refused_and_a_thumbnail_is_no_page(big: str, order: str) -> None:
    first = tiff(RGB, big, order)
    np.testing.assert_array_equal(
        decode_image(stack(first, THUMBNAIL, MASK, PAGE | MASK), SIDE, "x"), RGB
    )
    for kinds, number in (((0,), 2), ((PAGE,) * 4, 5), ((THUMBNAIL, 0), 2)):
        said = f"x is a TIFF of {number} pages; expected one picture in a file; to mend it: save"
        with pytest.raises(DataError, match=said):
            decode_image(stack(first, *kinds), SIDE, "x")


def test_a_stack_that_was_cut_off_or_goes_in_a_circle() -> None:
    whole = stack(tiff(RGB), PAGE)
    for size in (len(whole) - 30, len(tiff(RGB))):
        assert pages(whole[:size]) == 2
    (at,) = struct.unpack_from("<I", whole, 4)
    assert pages(whole[:-4] + struct.pack("<I", at)) == 2
    # A writer may leave out the place behind the last directory.
    assert pages(stack(tiff(RGB), THUMBNAIL)[:-4]) == 1
    assert pages(b"no TIFF") == 1
