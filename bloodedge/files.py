"""Small file operations every stage needs: digests, sizes, and writes that are whole or absent."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from bloodedge.errors import BloodedgeError, ConfigError, DataError

_CHUNK = 1 << 20
# Our own name, because what has it is deleted when nobody writes it any more.
_PARTIAL = ".bloodedge-partial-"
_JSON_LIMIT = 16 << 20
# What begins a formula (OWASP, "CSV Injection"); some programs first drop white space.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gzip_size(path: Path) -> int:
    """Return the bytes a download compressed with gzip (level 9) would take."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def user_folder(variable: str, otherwise: str) -> Path:
    """Return the folder that a variable names, or one in the user's home folder.

    Raises:
        ConfigError: the variable is not set, and nobody knows where the home folder is.
    """
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return Path.home() / otherwise
    except RuntimeError as error:
        raise ConfigError(
            f"~/{otherwise} is nowhere: you have no home folder", fix=f"set HOME, or {variable}"
        ) from error


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without error.

    The temporary name keeps the suffix, because Keras and OpenCV choose a format by it. What a
    writer that was killed left in the folder goes first.

    Raises:
        BloodedgeError: the disk is full or the folder cannot be written.
    """
    handle, temporary = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial_files(path.parent)
        handle, temporary = _locked_file(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; a result is an ordinary file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise BloodedgeError(
            f"could not write {path}: {error.strerror or error}",
            fix="free some disk space, or choose a folder that can be written",
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _locked_file(path: Path) -> tuple[int, Path]:
    """Make a temporary file beside `path` that is locked for as long as its handle is open."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, suffix=path.suffix, dir=path.parent)
        try:
            _lock(handle)
        except BlockingIOError:
            pass
        except OSError:
            # The file system knows no locks, so that nobody deletes there either.
            return handle, Path(name)
        # Between the two, another process may have taken it for one that nobody writes.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


@contextmanager
def partial_folder_in(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder that is deleted at the end, or by the next writer there.

    Raises:
        OSError: it cannot be made.
    """
    remove_partial_files(parent)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=parent) as name, ExitStack() as stack:
        # Where the file system knows no locks, nobody deletes either.
        with suppress(OSError):
            stack.enter_context(_locked(Path(name)))
        yield Path(name)


def remove_partial_files(folder: Path) -> None:
    """Delete what writers left in a folder when they were killed; a living one holds a lock."""
    for path in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError), _locked(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file or folder for as long as the block lasts.

    Raises:
        OSError: another process does, or the file system knows no locks.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole or not at all; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV that no spreadsheet takes for formulas, whole or not at all.

    Raises:
        BloodedgeError: the disk is full or the folder cannot be written.
    """
    # The name of a file may hold bytes that are no UTF-8.
    content = csv_text([header, *rows]).encode("utf-8", errors="backslashreplace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows, the header among them, as CSV that no spreadsheet takes for formulas."""
    return "".join(f"{_csv_line(row)}\n" for row in rows)


def _csv_line(row: Sequence[object]) -> str:
    out = io.StringIO()
    # So it quotes a carriage return inside a cell as well, behind which a formula could begin.
    csv.writer(out, lineterminator="\r\n").writerow([_csv_cell(value) for value in row])
    return out.getvalue().removesuffix("\r\n")


def _csv_cell(value: object) -> object:
    """Return a value; text that a spreadsheet would run has an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from an untrusted file.

    Raises:
        DataError: the file is missing, no regular one, larger than 16 MiB, or holds no JSON object
            or a number that is not finite, which JSON does not know and `write_json` refuses.
    """
    try:
        # Opening a pipe would wait for a writer, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            content = file.read(_JSON_LIMIT + 1)
        if len(content) > _JSON_LIMIT:
            raise DataError(f"{path} is larger than {_JSON_LIMIT >> 20} MiB", expected="JSON")
        value = parse_json(content.decode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no JSON object")
    return cast(dict[str, Any], value)


def parse_json(text: str | bytes) -> Any:
    """Return what JSON from anywhere holds.

    Raises:
        ValueError: it is none, or holds a number that is not finite, which JSON does not know.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no finite number")
    return value
