"""Numbers within an operator's options, which the reader keeps as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bloodedge.deploy.flat.tree import Options
from bloodedge.errors import ModelError


@dataclass(frozen=True)
class Slot:
    """A scalar of an options table.

    Attributes:
        index: its place in the schema.
        width: bytes.
        default: what it is where it is absent.
    """

    index: int
    width: int
    default: int = 0


# Of Conv2DOptions.
PADDING, STRIDE_W = Slot(0, 1), Slot(1, 4)
DILATION_W = Slot(4, 4, default=1)


def read_slot(options: Options, slot: Slot) -> int:
    """Return a scalar."""
    start = _start(options, slot)
    if start is None:
        return slot.default
    return int.from_bytes(options.inline[start : start + slot.width], "little", signed=True)


def with_slot(options: Options, slot: Slot, value: int) -> Options:
    """Return the options with another value in a slot that is stored.

    Raises:
        ModelError: the slot is absent.
    """
    start = _start(options, slot)
    if start is None:
        raise ModelError(f"the options hold no slot {slot.index}")
    number = value.to_bytes(slot.width, "little", signed=True)
    inline = options.inline[:start] + number + options.inline[start + slot.width :]
    return Options(options.vtable, inline)


def _start(options: Options, slot: Slot) -> int | None:
    at = 4 + 2 * slot.index
    if at + 2 > len(options.vtable):
        return None
    (offset,) = struct.unpack_from("<H", options.vtable, at)
    # Offsets count from the table's first word, which is not kept.
    return offset - 4 if offset else None
