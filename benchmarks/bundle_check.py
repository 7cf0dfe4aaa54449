"""Reading a bundle from elsewhere: nothing is written before every name and sum is right."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bloodedge.benchmarks.bundle import SUMS, clash, is_allowed, write_folder
from bloodedge.errors import ConfigError, DataError

MAX_FILES = 1000
MAX_BYTES = 2 << 30
# What the runner writes into an unpacked bundle.
# nohup.out is what the README of a bundle leads to.
RESULTS = ("result.json", "result.json.partial", "nohup.out")


@dataclass(frozen=True)
class Checked:
    """A bundle that holds what its sums say: file contents by name."""

    files: Mapping[str, bytes]

    @property
    def bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(map(len, self.files.values()))


def check_bundle(path: Path) -> Checked:
    """Read a bundle's zip or folder and check names, sizes and sums.

    Raises:
        DataError: it is damaged or incomplete, or a name, link or size in it is not allowed.
    """
    try:
        files = _from_folder(path) if path.is_dir() else _from_zip(path)
    # zipfile answers damage with half a dozen kinds; RuntimeError is an encrypted member.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(f"the bundle {path} cannot be read: {error}") from error
    if SUMS not in files:
        raise DataError(
            f"the bundle {path} has no {SUMS}",
            expected="all that bloodedge bundle writes",
            fix="copy or make it again; it may have been cut short",
        )
    expected = _sums(files[SUMS], path)
    if missing := sorted(set(expected) - set(files)):
        raise DataError(f"the bundle {path} lacks {missing[0]}")
    if added := sorted(set(files) - set(expected) - {SUMS}):
        raise DataError(f"the bundle {path} holds {added[0]!r}, which its sums do not list")
    for name, digest in expected.items():
        if sha256(files[name]).hexdigest() != digest:
            raise DataError(f"the bundle {path}: {name} is damaged", fix="copy or make it again")
    return Checked(files)


def unpack_bundle(path: Path, folder: Path) -> Checked:
    """Check a bundle and write its files into a new folder.

    Raises:
        ConfigError: the folder exists.
        DataError: as `check_bundle`; nothing was written.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists", fix="choose another folder")
    checked = check_bundle(path)
    write_folder(checked.files, folder)
    return checked


def _from_zip(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        # Not `is_dir()`, which fails on an empty name.
        entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        _check_bounds(len(entries), sum(entry.file_size for entry in entries))
        _check_names([entry.filename for entry in entries])
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ValueError(f"{entry.filename!r} is a link or a device")
            # What any zip program writes; Python's other methods fail on damage in other ways.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename!r} is neither stored nor deflated")
            with archive.open(entry) as file:
                # A header may promise less than it unpacks to.
                content = file.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise ValueError(f"{entry.filename!r} is not as long as its header says")
            files[entry.filename] = content
    return files


def _from_folder(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name!r} is a link or a device")
    plain = [path for path in paths if path.is_file() and not _made_there(path.relative_to(folder))]
    _check_bounds(len(plain), sum(path.stat().st_size for path in plain))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in plain}


def _made_there(path: Path) -> bool:
    """Whether a file is what a measurement leaves, or a file manager; neither is measured."""
    return path.as_posix() in RESULTS or path.name.startswith(".")


def _check_bounds(count: int, size: int) -> None:
    if count > MAX_FILES:
        raise ValueError(f"it holds {count} files, more than {MAX_FILES}")
    if size > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES >> 30} GiB")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not is_allowed(name):
            raise ValueError(f"the name {name[:80]!r} is not allowed")
    if both := clash(names):
        first, second = both
        if first == second:
            raise ValueError(f"{first!r} is in it twice")
        raise ValueError(f"it holds both {first!r} and {second!r}, which not every device can")


def _sums(content: bytes, path: Path) -> dict[str, str]:
    found = {}
    for line in content.decode("utf-8", "replace").splitlines():
        digest, gap, name = line[:64], line[64:66], line[66:]
        if gap != "  " or not name or set(digest) - set("0123456789abcdef"):
            raise DataError(f"the bundle {path}: {SUMS} is damaged")
        found[name] = digest
    return found
