"""Files that are whole or absent, whoever was killed while writing one."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bloodedge.files import atomic_path, partial_folder_in, write_text

_WRITER = """
import sys, time
from pathlib import Path
from bloodedge.files import atomic_path
with atomic_path(Path(sys.argv[1])) as path:
    path.write_text("half")
    print(flush=True)
    time.sleep(60)
"""

_FOLDER_WRITER = """
import sys, time
from pathlib import Path
from bloodedge.files import partial_folder_in
with partial_folder_in(Path(sys.argv[1])) as folder:
    (folder / "in").mkdir()
    (folder / "in" / "a.txt").write_text("half")
    print(flush=True)
    time.sleep(60)
"""


def test_a_folder_of_a_killed_writer_goes_with_the_next_and_that_of_a_living_one_stays(
    tmp_path: Path,
):
    command = [sys.executable, "-c", _FOLDER_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        (left,) = tmp_path.iterdir()
        with partial_folder_in(tmp_path) as own:
            assert sorted(tmp_path.iterdir()) == sorted([left, own])
        writer.send_signal(signal.SIGKILL)
    assert (left / "in" / "a.txt").read_text() == "half"
    with partial_folder_in(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_one_stays(tmp_path: Path):
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        (left,) = tmp_path.iterdir()
        write_text(tmp_path / "b.txt", "whole")
        assert left.read_text() == "half"
        writer.send_signal(signal.SIGKILL)
    write_text(tmp_path / "b.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_another_programs_partial_file_stays(tmp_path: Path):
    other = tmp_path / ".partial-download.npz"
    other.write_text("half")
    write_text(tmp_path / "b.txt", "whole")
    assert other.exists()


def test_a_file_that_was_deleted_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As another process does that looks for what killed writers left."""
    flock = fcntl.flock
    deleted: list[str] = []

    def late(handle: int, operation: int) -> None:
        if not deleted:
            (path,) = tmp_path.iterdir()
            path.unlink()
            deleted.append(path.name)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "a.txt", "whole")
    assert deleted
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_where_no_file_can_be_locked_files_are_written_and_none_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuses(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with atomic_path(tmp_path / "a.txt") as first:
        first.write_text("whole")
        write_text(tmp_path / "b.txt", "whole")
        assert first.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]
