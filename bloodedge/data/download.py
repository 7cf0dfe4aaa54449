"""Downloading one published file: with progress, whole, and as its publisher's MD5 says."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO

from bloodedge.console import Meter
from bloodedge.errors import DataError
from bloodedge.files import atomic_path

MAX_DOWNLOAD = 16 << 30
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


def download(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`; whatever interrupts it leaves nothing behind.

    Args:
        url: what to fetch.
        path: where it is to be; it appears when it is whole and its MD5 right.
        md5: the published hexadecimal MD5.

    Raises:
        DataError: no connection, a broken or too large transfer, or another MD5.
        BloodedgeError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        with temporary.open("wb") as out:
            _stream(url, path, out)
        if (found := md5_of(temporary)) != md5:
            raise DataError(
                f"the download from {url} has MD5 {found}, so it was damaged on the way",
                expected=md5,
                fix="fetch it again",
            )


def md5_of(path: Path) -> str:
    """Return the hexadecimal MD5 of a file's bytes; it guards against damage, not malice.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _stream(url: str, path: Path, out: IO[bytes]) -> None:
    """Copy the published file to `out`, with progress in MiB."""
    request = urllib.request.Request(url, headers={"User-Agent": "bloodedge"})
    with _network_errors(url, path):
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    with response:
        declared: int = response.length or 0
        received = 0
        with Meter(f"downloading {path.name}", max(1, -(-declared // _CHUNK))) as meter:
            while True:
                with _network_errors(url, path):
                    chunk = response.read(_CHUNK)
                if not chunk:
                    break
                received += len(chunk)
                if max(declared, received) > MAX_DOWNLOAD:
                    raise DataError(f"{url} is larger than {MAX_DOWNLOAD >> 30} GiB")
                out.write(chunk)
                meter.update("MiB")
    if received < declared:
        raise _failed(url, path, f"it broke off after {received} of {declared} bytes")


@contextmanager
def _network_errors(url: str, path: Path) -> Iterator[None]:
    """Tell a network that fails apart from a disk that cannot be written."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        raise _failed(url, path, str(error) or type(error).__name__) from error


def _failed(url: str, path: Path, why: str) -> DataError:
    return DataError(
        f"could not download {path.name}: {why}",
        fix=f"fetch {url} on another machine and put it at {path}",
    )
