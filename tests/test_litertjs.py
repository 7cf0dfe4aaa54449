"""LiteRT.js is used only as it was published, and its archives unpack to nothing unexpected."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from bloodedge.benchmarks.browser import litertjs
from bloodedge.benchmarks.browser.litertjs import Package, load_litertjs
from bloodedge.benchmarks.browser.tarball import read_members
from bloodedge.errors import ConfigError, DataError

FILES = {"package/dist/index.js": b"export {}", "package/README.md": b"words"}


def tgz(files: dict[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry)
    return out.getvalue()


# ---- archives ----


def test_only_what_is_wanted_is_read() -> None:
    archive = tgz({**FILES, "../../escaped": b"x", "/etc/absolute": b"x"})
    wanted = {"package/dist/index.js"}
    assert read_members(archive, wanted, 1 << 20) == {"package/dist/index.js": b"export {}"}


def test_an_archive_that_unpacks_to_too_much_is_refused_whatever_is_wanted() -> None:
    archive = tgz({**FILES, "package/huge": bytes(2 << 20)})
    assert len(archive) < 1 << 14
    with pytest.raises(DataError, match="more than 1 MiB"):
        read_members(archive, {"package/dist/index.js"}, 1 << 20)


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (b"no archive", "cannot be read"),
        (tgz(FILES)[:60], "cannot be read"),
        (gzip.compress(b"x" * 5000), "cannot be read"),
        (tgz({"package/README.md": b"x"}), "lacks 'package/dist/index.js'"),
        (tgz({}, link="package/dist/index.js"), "is a link"),
        (tgz({}), "lacks"),
    ],
    # An archive holds the time it was made, and test ids must be the same in every worker.
    ids=("no archive", "cut short", "no tar", "without the file", "a link", "empty"),
)
def test_a_damaged_or_odd_archive_is_one_clear_error(archive: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_members(archive, {"package/dist/index.js"}, 1 << 20)


# ---- pins, cache and npm ----


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Package, bytes]:
    """A package of our own in place of LiteRT.js, an empty cache, and a PATH of our own."""
    archive = tgz(FILES)
    integrity = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    made = Package("@litertjs/core", integrity, {"core.js": "package/dist/index.js"})
    monkeypatch.setattr(litertjs, "PACKAGES", (made,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}")
    return made, archive


def npm(folder: Path, script: str) -> None:
    program = folder / "bin" / "npm"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> '{folder}/calls'\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_npm_is_asked_once_and_the_cache_serves_from_then_on(
    package: tuple[Package, bytes], tmp_path: Path
) -> None:
    (tmp_path / "published.tgz").write_bytes(package[1])
    npm(tmp_path, f"cp '{tmp_path}/published.tgz' {package[0].archive}")
    assert load_litertjs() == {"core.js": b"export {}"}
    assert load_litertjs() == {"core.js": b"export {}"}
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"pack --silent --ignore-scripts @litertjs/core@{litertjs.VERSION}"]


def test_another_archive_from_npm_is_refused_and_not_kept(
    package: tuple[Package, bytes], tmp_path: Path
) -> None:
    (tmp_path / "other.tgz").write_bytes(tgz({**FILES, "package/added": b""}))
    npm(tmp_path, f"cp '{tmp_path}/other.tgz' {package[0].archive}")
    with pytest.raises(DataError, match="is not @litertjs/core"):
        load_litertjs()
    assert not list((tmp_path / "cache").rglob("*.tgz"))


def test_a_failing_npm_is_one_line_with_the_way_round(
    package: tuple[Package, bytes], tmp_path: Path
) -> None:
    npm(tmp_path, "echo 'npm error code\n ENOTFOUND' >&2; exit 7")
    with pytest.raises(DataError, match=r"npm error code ENOTFOUND.*--litertjs FOLDER"):
        load_litertjs()


def test_without_npm_the_way_round_is_said(
    package: tuple[Package, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match=r"npm is not installed.*npm pack @litertjs/core@"):
        load_litertjs()


def test_a_folder_takes_the_place_of_npm_and_is_held_to_the_same_pin(
    package: tuple[Package, bytes], tmp_path: Path
) -> None:
    archive = tmp_path / package[0].archive
    with pytest.raises(DataError, match="cannot be read"):
        load_litertjs(tmp_path)
    archive.write_bytes(package[1])
    assert load_litertjs(tmp_path) == {"core.js": b"export {}"}
    archive.write_bytes(package[1] + b"\0")
    with pytest.raises(DataError, match="as it was published"):
        load_litertjs(tmp_path)
    assert not (tmp_path / "calls").exists()


def test_every_package_is_pinned_by_a_whole_sha512() -> None:
    for package in litertjs.PACKAGES:
        assert len(base64.b64decode(package.integrity, validate=True)) == 64
