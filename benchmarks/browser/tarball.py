"""Reading chosen files of a .tgz into memory: nothing is written, sizes are checked first."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Set
from gzip import BadGzipFile

from bloodedge.errors import DataError


def read_members(archive: bytes, wanted: Set[str], limit: int) -> dict[str, bytes]:
    """Return the contents of the wanted members of a gzipped tar.

    Args:
        archive: the .tgz.
        wanted: names of members that must be there as regular files, each once.
        limit: the most bytes all members may unpack to, wanted or not.

    Raises:
        DataError: it is damaged or too large, or a wanted member is missing, twice there, or no
            regular file.
    """
    found: dict[str, bytes] = {}
    total = 0
    try:
        # A stream: a header is read, and its size counted, before what follows it is unpacked.
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar:
            for member in tar:
                total += member.size
                if total > limit:
                    raise DataError(f"the archive unpacks to more than {limit >> 20} MiB")
                if member.name in wanted:
                    if member.name in found or not member.isreg():
                        raise DataError(f"{member.name!r} is twice in the archive, or is a link")
                    file = tar.extractfile(member)
                    found[member.name] = file.read() if file else b""
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, BadGzipFile) as error:
        raise DataError(f"the archive cannot be read: {error}") from error
    if missing := sorted(wanted - set(found)):
        raise DataError(f"the archive lacks {missing[0]!r}")
    return found
