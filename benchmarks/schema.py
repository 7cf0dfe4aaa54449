"""The schema of a result: which version wrote it, and whether this one can read it."""

from __future__ import annotations

import re
from pathlib import Path

from bloodedge.benchmarks.runner import one_line
from bloodedge.errors import DataError

_NUMBERED = re.compile(r"(.+)/(\d{1,6})")
_SHOWN = 60


def check_schema(path: Path, found: object, own: str) -> None:
    """Refuse a result that this version cannot read.

    Args:
        path: the file, for the message.
        found: what it says of its schema.
        own: the newest one that can be read, such as `bloodedge-benchmark/1`.

    Raises:
        DataError: it is newer, or none of ours.
    """
    if found == own:
        return
    theirs = _NUMBERED.fullmatch(found) if isinstance(found, str) else None
    ours = _NUMBERED.fullmatch(own)
    if theirs and ours and theirs[1] == ours[1] and int(theirs[2]) > int(ours[2]):
        raise DataError(
            f"{path} has the schema {found}, newer than {own}, the newest this bloodedge reads",
            fix="update bloodedge here to the version that wrote it",
        )
    said = one_line(repr(found))[:_SHOWN]
    raise DataError(f"{path} is no benchmark result: its schema is {said}", expected=own)
