"""Folders that take another's place."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from bloodedge import swap
from bloodedge.swap import swap_in


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_between_the_two_renames_leaves_the_old_folder(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folder(tmp_path / "a", "old"), folder(tmp_path / "new", "new")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        done = rename(path, target)
        if path == old:
            raise error
        return done

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(Path, "rename", interrupted)
        swap_in(new, old)
    assert (old / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "new"]


def test_what_is_write_protected_is_made_writable_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may delete it anyway: so the modes are what is looked at."""
    old = folder(tmp_path / "a", "old")
    folder(old / "in", "old")
    modes = []

    def looks(path: Path) -> None:
        modes.extend(stat.S_IMODE(each.stat().st_mode) for each in (path, path / "in"))
        rmtree(path)

    rmtree = shutil.rmtree
    monkeypatch.setattr(swap.shutil, "rmtree", looks)
    for each in (old / "in", old):
        each.chmod(0o555)
    swap_in(folder(tmp_path / "new", "new"), old)
    assert modes == [0o755, 0o755]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
