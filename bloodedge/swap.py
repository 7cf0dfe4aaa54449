"""Folders that take another's place whole, whatever interrupts that.

What is replaced is called `.NAME.replaced` until its successor is in its place.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from bloodedge.errors import BloodedgeError
from bloodedge.files import fsync_folder

# What renaming over a folder with something in it gives: for a folder, and for a link or a file.
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR)


def replaced(final: Path) -> Path:
    """Return where a folder is while another takes its place; a power cut may leave it there."""
    return final.parent / f".{final.name}.replaced"


def swap_in(new: Path, final: Path) -> None:
    """Rename a folder into its place; what it replaces is deleted after that, a link alone.

    Raises:
        OSError: it cannot be; what was there is there again.
    """
    old = replaced(final)
    taken = os.path.lexists(final)
    try:
        if taken:
            final.rename(old)
        new.rename(final)
    except BaseException:
        if taken and not os.path.lexists(final):
            old.rename(final)
        raise
    fsync_folder(final.parent)
    with suppress(OSError):
        delete(old)


def check_swap(final: Path) -> None:
    """Try what `swap_in` will do with what is there, without doing it.

    Renaming over a folder that is not empty fails in any case, but first for whatever else it
    would: a disk's own folder, or another user's.

    Raises:
        OSError: it cannot be renamed.
    """
    full = replaced(final)
    full.mkdir()
    try:
        (full / "full").touch()
        final.rename(full)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
    finally:
        delete(full)


def end_swap(final: Path) -> None:
    """Go on where a power cut ended `swap_in`: the old folder comes back, or goes.

    Raises:
        BloodedgeError: what was replaced earlier cannot be deleted, and would be in the way.
    """
    old = replaced(final)
    if not os.path.lexists(old):
        return
    if not os.path.lexists(final):
        old.rename(final)
        return
    try:
        delete(old)
    except OSError as error:
        raise BloodedgeError(
            f"{old}, which {final} replaced, cannot be deleted ({error.strerror})",
            fix="delete it, or choose another name",
        ) from error


def delete(path: Path) -> None:
    """Delete a link alone, or a folder with all in it, write-protected ones too.

    Raises:
        OSError: it is another user's.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for name, _, _ in os.walk(path):
        folder = Path(name)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.chmod(mode | stat.S_IRWXU)
    shutil.rmtree(path)
