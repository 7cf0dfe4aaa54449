"""LiteRT.js: two npm packages, pinned by SHA-512, kept in the user's cache, unpacked in memory.

The packages come through npm, which knows the user's registry, proxy and certificates. Their
code is used only when the archive is bit for bit the pinned one, wherever it came from.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha512
from pathlib import Path

from bloodedge.benchmarks.browser.tarball import read_members
from bloodedge.console import say
from bloodedge.data.synthetic_set import cache_folder
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.files import atomic_path

VERSION = "2.5.3"
_WASM = tuple(
    f"wasm/litert_wasm_{variant}internal.{kind}"
    for variant in ("", "compat_", "threaded_")
    for kind in ("js", "wasm")
)
_MAX_ARCHIVE = 32 << 20
_MAX_UNPACKED = 64 << 20
_NPM_SECONDS = 600.0


@dataclass(frozen=True)
class Package:
    """An npm package at a version.

    Attributes:
        name: as npm knows it.
        integrity: the archive's SHA-512 in base64, as npm publishes it.
        files: what is needed of it, by the path it is served under.
    """

    name: str
    integrity: str
    files: Mapping[str, str]

    @property
    def archive(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{VERSION}.tgz"


PACKAGES = (
    Package(
        "@litertjs/core",
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {"core.js": "package/dist/index.js", **{name: f"package/{name}" for name in _WASM}},
    ),
    Package(
        "@litertjs/wasm-utils",
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"wasm-utils.js": "package/dist/index.js"},
    ),
)
HOW = f"npm pack {' '.join(f'{p.name}@{VERSION}' for p in PACKAGES)}"


def load_litertjs(folder: Path | None = None) -> dict[str, bytes]:
    """Return LiteRT.js as the page loads it: contents by served path.

    Args:
        folder: holds the two archives that `npm pack` makes; without it, the user's cache,
            which is filled through npm on first use.

    Raises:
        ConfigError: npm is not installed and the cache is empty.
        DataError: npm failed, or an archive is missing, damaged or another version.
        BloodedgeError: the cache cannot be written.
    """
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        path = folder / package.archive if folder else _cached(package)
        found = read_members(_verified(package, path), set(package.files.values()), _MAX_UNPACKED)
        files |= {served: found[inside] for served, inside in package.files.items()}
    return files


def _cached(package: Package) -> Path:
    path = cache_folder() / "litertjs" / package.archive
    if not path.is_file():
        _fetch(package, path)
    return path


def _verified(package: Package, path: Path) -> bytes:
    """Return the archive's bytes if they are the pinned ones."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_ARCHIVE + 1)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", fix=f"{HOW} in its folder"
        ) from error
    if sha512(content).digest() != b64decode(package.integrity):
        raise DataError(
            f"{path} is not {package.name} {VERSION} as it was published",
            expected=f"SHA-512 {package.integrity}",
            fix=f"delete it, and {HOW} in its folder",
        )
    return content


def _fetch(package: Package, path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(
            "LiteRT.js is not there yet and npm is not installed",
            fix=f"on a machine with npm: {HOW}; then --litertjs FOLDER with both files",
        )
    say(f"fetching {package.name} {VERSION} through npm into {path.parent}")
    with tempfile.TemporaryDirectory(prefix="bloodedge-npm-") as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{VERSION}"]
        try:
            # In an empty folder: no project's .npmrc or package.json takes part.
            done = subprocess.run(
                command, cwd=folder, capture_output=True, timeout=_NPM_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(package, str(error)) from error
        made = Path(folder) / package.archive
        if done.returncode or not made.is_file():
            words = done.stderr.decode("utf-8", "replace").split()
            raise _failed(package, " ".join(words)[:300] or f"exit code {done.returncode}")
        content = _verified(package, made)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _failed(package: Package, why: str) -> BloodedgeError:
    return DataError(
        f"npm could not fetch {package.name} {VERSION}: {why}",
        fix=f"on a machine with a network: {HOW}; then --litertjs FOLDER with both files",
    )
