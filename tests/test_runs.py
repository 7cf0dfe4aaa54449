from __future__ import annotations

import csv
import errno
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bloodedge import files, runs, swap
from bloodedge.errors import BloodedgeError, DataError, RunError
from bloodedge.references import latest_run
from bloodedge.runs import Manifest, check_name, load_run, open_run, usual_name


def manifest(name: str, **changes) -> Manifest:
    fields = {
        "kind": "train",
        "name": name,
        "config": {},
        "data": {"fingerprint": "f"},
        "parents": {},
        "model": {},
        "metrics": {},
        "seed": 0,
        "duration_s": 1.0,
    }
    return Manifest(**{**fields, **changes})


def make_run(name: str, content: str = "x", **options):
    with open_run(name, **options) as run:
        (run.path / "model.txt").write_text(content)
        return run.commit(manifest(name))


def test_a_run_appears_whole_with_the_digest_of_every_file(isolated_runs: Path):
    run = make_run("a")
    assert run.path == isolated_runs / "a"
    assert run.manifest["files"]["model.txt"] == {
        "bytes": 1,
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }
    assert sorted(p.name for p in isolated_runs.iterdir()) == ["a"]


@pytest.mark.parametrize("last", ["write_json", "swap_in"])
def test_scratch_files_survive_until_nothing_can_fail(last: str, isolated_runs: Path, monkeypatch):
    with open_run("a", resumable=True) as run:
        (run.path / ".checkpoint").write_text("hours of work")
        with monkeypatch.context() as patch:
            patch.setattr(f"bloodedge.runs.{last}", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run.commit(manifest("a"), scratch=(".checkpoint",))
        assert (run.path / ".checkpoint").exists()
        done = run.commit(manifest("a"), scratch=(".checkpoint",))
    assert [p.name for p in done.path.iterdir()] == ["manifest.json"]


def test_an_error_inside_leaves_no_run(isolated_runs: Path):
    with pytest.raises(ZeroDivisionError), open_run("a") as run:
        (run.path / "model.txt").write_text("half")
        raise ZeroDivisionError
    assert not list(isolated_runs.iterdir())


def test_what_a_killed_stage_left_is_no_part_of_the_next_run(isolated_runs: Path):
    left = isolated_runs / ".a.partial"
    left.mkdir(parents=True)
    (left / "old.csv").write_text("of another try")
    run = make_run("a")
    assert set(run.manifest["files"]) == {"model.txt"}
    assert not (run.path / "old.csv").exists()


def test_replacing_keeps_the_old_run_until_the_new_one_is_whole(isolated_runs: Path):
    make_run("a", "old")
    with pytest.raises(ZeroDivisionError), open_run("a", force=True):
        raise ZeroDivisionError
    assert (isolated_runs / "a" / "model.txt").read_text() == "old"
    make_run("a", "new", force=True)
    assert (isolated_runs / "a" / "model.txt").read_text() == "new"
    assert sorted(p.name for p in isolated_runs.iterdir()) == ["a"]


def test_nothing_is_overwritten_without_force():
    make_run("a")
    with pytest.raises(RunError, match="--force"):
        make_run("a")


def test_an_interrupted_run_is_continued_only_when_asked(isolated_runs: Path):
    with pytest.raises(KeyboardInterrupt), open_run("a", resumable=True) as run:
        (run.path / "checkpoint").write_text("1")
        # As a writer leaves it that is killed.
        (run.path / ".bloodedge-partial-x.csv").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="--resume"):
        make_run("a", resumable=True)
    with open_run("a", resumable=True, resume=True) as run:
        assert (run.path / "checkpoint").read_text() == "1"
        assert [path.name for path in run.path.iterdir()] == ["checkpoint"]
    with open_run("a", resumable=True, force=True) as run:
        assert not list(run.path.iterdir())


def test_a_replacement_that_was_interrupted_is_continued_with_both_options(isolated_runs: Path):
    make_run("a", "old")
    with (
        pytest.raises(KeyboardInterrupt),
        open_run("a", resumable=True, force=True) as run,
    ):
        (run.path / "checkpoint").write_text("1")
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="--force"), open_run("a", resumable=True, resume=True):
        pass
    with open_run("a", resumable=True, resume=True, force=True) as run:
        assert (run.path / "checkpoint").read_text() == "1"
    assert (isolated_runs / "a" / "model.txt").read_text() == "old"


def test_two_writers_of_one_run_exclude_each_other():
    with open_run("a"), pytest.raises(RunError, match="another process"), open_run("a"):
        pass


def test_a_full_disk_is_one_clear_error(isolated_runs: Path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BloodedgeError, match=r"No space left on device; to mend it: free"):
        make_run("a")
    assert not (isolated_runs / "a").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "device; to mend it: free some"),
        (OSError("100000 requested and 25584 written"), "written; to mend it: free some"),
        (OSError(errno.ENOENT, "No such file or directory", "adb"), "or directory: adb$"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe$"),
    ],
)
def test_only_a_disk_that_cannot_be_written_brings_advice_about_it(error: OSError, said: str):
    with pytest.raises(BloodedgeError, match=f"^the run .*a ended: .*{said}"), open_run("a"):
        raise error


def test_a_run_that_another_process_finished_meanwhile_is_not_replaced(
    isolated_runs: Path, monkeypatch
):
    locked = runs._locked

    def late(path: Path, name: str):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "_locked", locked)
            make_run("a", "theirs")
        return locked(path, name)

    monkeypatch.setattr(runs, "_locked", late)
    with pytest.raises(RunError, match="--force"):
        make_run("a", "ours")
    assert (isolated_runs / "a" / "model.txt").read_text() == "theirs"


def test_a_run_whose_replacement_a_power_cut_ended_comes_back(isolated_runs: Path):
    make_run("a", "old").path.rename(isolated_runs / ".a.replaced")
    with pytest.raises(RunError, match="exists"):
        make_run("a", "new")
    assert (isolated_runs / "a" / "model.txt").read_text() == "old"
    assert sorted(p.name for p in isolated_runs.iterdir()) == ["a"]


def test_a_run_that_is_a_link_is_replaced_as_often_as_asked(isolated_runs: Path, tmp_path: Path):
    """Somebody moved it to a larger disk; what is there stays."""
    moved = make_run("a", "old").path.rename(tmp_path / "large")
    (isolated_runs / "a").symlink_to(moved)
    for content in ("new", "newer", "newest"):
        make_run("a", content, force=True)
        assert (isolated_runs / "a" / "model.txt").read_text() == content
        assert [p.name for p in isolated_runs.iterdir()] == ["a"]
    assert (moved / "model.txt").read_text() == "old"


def test_a_link_to_nothing_is_a_run_that_exists(isolated_runs: Path, tmp_path: Path):
    isolated_runs.mkdir(exist_ok=True)
    (isolated_runs / "a").symlink_to(tmp_path / "unmounted")
    with pytest.raises(RunError, match="exists"):
        make_run("a")
    make_run("a", "new", force=True)
    assert (isolated_runs / "a" / "model.txt").read_text() == "new"


def test_what_would_be_in_the_way_of_a_replacement_is_refused_before_the_work(
    isolated_runs: Path, monkeypatch: pytest.MonkeyPatch
):
    make_run("a", "new")
    make_run("b", "another user's").path.rename(isolated_runs / ".a.replaced")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(swap, "delete", refuse)
    reached = []
    with (
        pytest.raises(BloodedgeError, match=r"\.a\.replaced, which .* cannot be deleted"),
        open_run("a", force=True),
    ):
        reached.append(1)
    assert not reached
    assert (isolated_runs / "a" / "model.txt").read_text() == "new"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="nothing can be mounted")
def test_a_disk_in_the_place_of_a_run_is_refused_before_the_work(isolated_runs: Path):
    make_run("a")
    there = str(isolated_runs / "a")
    # One of the same file system looks like any folder.
    if subprocess.run(["mount", "--bind", there, there], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        said = r"cannot be replaced: .*busy.*; to mend it: choose"
        with pytest.raises(RunError, match=said), open_run("a", force=True):
            pytest.fail("the work began")
    finally:
        subprocess.run(["umount", there], check=True)
    assert [path.name for path in isolated_runs.iterdir()] == ["a"]
    assert load_run(isolated_runs / "a").name == "a"


def test_what_cannot_be_moved_is_refused_before_the_work(isolated_runs: Path, monkeypatch):
    make_run("a")

    def refused(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    said = "cannot be replaced: Operation not permitted"
    with pytest.raises(RunError, match=said), open_run("a", force=True):
        pytest.fail("the work began")
    assert [path.name for path in isolated_runs.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "link to nothing"])
def test_trying_a_replacement_changes_nothing(kind: str, tmp_path: Path):
    final, other = tmp_path / "a", tmp_path / "other"
    other.mkdir()
    if kind == "folder":
        final.mkdir()
    elif kind == "file":
        final.touch()
    else:
        final.symlink_to(other if kind == "link" else tmp_path / "nothing")
    before = final.lstat().st_ino
    swap.check_swap(final)
    assert final.lstat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "other"]


@pytest.mark.parametrize(
    ("created", "read"),
    [
        (None, ""),
        (5, ""),
        ("soon", ""),
        ("0001-01-01T00:00:00+09:00", ""),
        ("2026-01-01T01:00:00+02:00", "2025-12-31T23:00:00+00:00"),
        ("2026-01-01T01:00:00", "2026-01-01T01:00:00+00:00"),
    ],
)
def test_a_date_that_is_none_does_not_make_a_run_the_newest(
    created: object, read: str, isolated_runs: Path
):
    path = make_run("a").path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "created": created}))
    assert load_run(path.parent).manifest["created"] == read
    assert load_run(make_run("b").path).manifest["created"] > read
    assert latest_run(("train",)) == "b"


def test_a_run_does_not_take_the_place_of_what_it_is_made_from(isolated_runs: Path):
    parent = make_run("a", "the parent's weights")
    reads = [parent.manifest["files"]["model.txt"]["sha256"]]
    with (
        pytest.raises(RunError, match=r"holds model.txt, which is read .* choose another --name"),
        open_run("a", force=True, reads=reads),
    ):
        pass
    assert (isolated_runs / "a" / "model.txt").read_text() == "the parent's weights"
    (parent.path / runs.MANIFEST).write_text("damaged")
    with open_run("a", force=True, reads=reads):
        pass


def test_a_successor_that_was_whole_when_the_power_went_takes_its_place(isolated_runs: Path):
    make_run("a", "old").path.rename(isolated_runs / ".a.replaced")
    make_run("b", "new").path.rename(isolated_runs / ".a.partial")
    with pytest.raises(RunError, match="exists"), open_run("a", resumable=True, resume=True):
        pass
    assert (isolated_runs / "a" / "model.txt").read_text() == "new"
    assert sorted(p.name for p in isolated_runs.iterdir()) == ["a"]


def test_in_a_folder_that_cannot_be_written_a_run_still_exists(isolated_runs: Path, monkeypatch):
    make_run("a")
    monkeypatch.setattr(runs.os, "access", lambda path, mode: False)
    monkeypatch.setattr(runs, "_locked", None)
    with pytest.raises(RunError, match=r"a exists; .* --force"):
        make_run("a")


def test_a_run_that_was_replaced_does_not_come_back_after_its_successor(isolated_runs: Path):
    make_run("a", "old").path.rename(isolated_runs / ".a.replaced")
    make_run("b", "new").path.rename(isolated_runs / "a")
    with pytest.raises(RunError, match="exists"):
        make_run("a")
    assert sorted(p.name for p in isolated_runs.iterdir()) == ["a"]


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", ".hidden", "a" * 101, "a\n"])
def test_a_name_cannot_leave_the_runs_folder(name: str):
    with pytest.raises(RunError, match="run's name"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cnn_se-int8", "cnn_se-int8"),
        ("my model (2)-int8", "my_model_2_-int8"),
        ("../x-test", "x-test"),
        (".hidden-test", "hidden-test"),
        ("\u96ea-test", "test"),
    ],
)
def test_a_usual_name_is_one_that_a_run_can_have(text: str, name: str):
    assert check_name(usual_name(text)) == name


@pytest.mark.parametrize(
    ("module", "program"),
    [
        (None, ["bloodedge"]),
        ("bloodedge.__main__", ["python", "-m", "bloodedge"]),
        ("bloodedge.benchmarks.size_floors", ["python", "-m", "bloodedge.benchmarks.size_floors"]),
    ],
)
def test_the_recorded_command_can_be_given_to_a_shell(module, program: list[str], monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    words = ["train", "--data", "two class's", "--name", "a;b", "--variants", "float32,int8"]
    monkeypatch.setattr(sys, "argv", ["/some where/bloodedge", *words])
    spec = module and SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    command = manifest("a").command
    assert shlex.split(command) == [*program, *words]
    # What needs no quotes has none.
    assert command.startswith(f"{' '.join(program)} train --data '")
    assert command.endswith("--variants float32,int8")


@pytest.mark.parametrize(
    ("words", "variables", "taken"),
    [
        ([], {}, []),
        ([], {"KERAS_BACKEND": "tensorflow", "BLOODEDGE_DATA": ""}, []),
        ([], {"BLOODEDGE_DATA": "our cells;"}, ["BLOODEDGE_DATA=our cells;"]),
        (["--data", "b"], {"BLOODEDGE_DATA": "a"}, []),
        (["--data=b"], {"BLOODEDGE_DATA": "a"}, []),
        (["--database", "b"], {"BLOODEDGE_DATA": "a"}, ["BLOODEDGE_DATA=a"]),
        ([], {"KERAS_BACKEND": "jax"}, ["KERAS_BACKEND=jax"]),
        (["--backend", "jax"], {"KERAS_BACKEND": "jax"}, []),
        (
            ["--backend", "jax", "--host", "0"],
            {
                "KERAS_BACKEND": "jax",
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": "a:1,b:1",
                "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
                "KERAS_DISTRIBUTION_PROCESS_ID": "0",
            },
            [
                "KERAS_DISTRIBUTION_JOB_ADDRESSES=a:1,b:1",
                "KERAS_DISTRIBUTION_NUM_PROCESSES=2",
            ],
        ),
    ],
)
def test_the_recorded_command_has_what_the_environment_said_instead_of_options(
    words: list[str], variables: dict[str, str], taken: list[str], monkeypatch
):
    for name in runs._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["bloodedge", "train", *words])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert shlex.split(manifest("a").command) == [*taken, "bloodedge", "train", *words]


def test_a_shell_gives_the_command_what_the_environment_said(monkeypatch):
    monkeypatch.setenv("BLOODEDGE_DATA", "it's $HOME;")
    monkeypatch.setattr(sys, "argv", ["printenv", "BLOODEDGE_DATA"])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    command = manifest("a").command
    monkeypatch.delenv("BLOODEDGE_DATA")
    said = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert said == "it's $HOME;\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"schema_version": 99}',
        b'{"schema_version": 1}',
        b"[" * 9999,
    ],
)
def test_a_damaged_manifest_is_one_clear_error(content: bytes, isolated_runs: Path):
    run = make_run("a")
    (run.path / "manifest.json").write_bytes(content)
    with pytest.raises(RunError):
        load_run(run.path)


@pytest.mark.parametrize("key", ["config", "data", "files", "metrics", "model", "parents"])
@pytest.mark.parametrize("value", [None, 5, []])
def test_a_manifest_whose_parts_are_no_objects_is_damaged(key: str, value: object):
    run = make_run("a")
    path = run.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RunError, match=f"damaged: {key} is no JSON object"):
        load_run(run.path)


def test_an_oversized_json_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "big.json"
    path.write_text(json.dumps({"a": "x" * 100}))
    monkeypatch.setattr(files, "_JSON_LIMIT", 50)
    with pytest.raises(DataError, match="larger than"):
        files.read_json(path)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_is_no_finite_number_is_no_json(tmp_path: Path, number: str):
    path = tmp_path / "a.json"
    path.write_text(f'{{"a": [{number}]}}')
    with pytest.raises(DataError, match=f"{number} is no finite number"):
        files.read_json(path)


def test_what_is_no_regular_file_is_no_json(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "endless.json", ""):
        with pytest.raises(DataError, match="no regular file"):
            files.read_json(tmp_path / name)


def test_a_write_is_whole_or_absent(tmp_path: Path):
    target = tmp_path / "a.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.json"]


def test_what_is_written_can_be_read_by_whom_the_umask_allows(tmp_path: Path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_table_takes_names_that_are_no_utf8(tmp_path: Path):
    path = tmp_path / "table.csv"
    files.write_csv(path, ("image",), [(os.fsdecode(b"caf\xe9.png"),)])
    assert path.read_text(encoding="utf-8") == "image\ncaf\\udce9.png\n"


def test_no_spreadsheet_takes_a_table_for_formulas(tmp_path: Path):
    path = tmp_path / "table.csv"
    files.write_csv(path, ("image", "@class"), [("=1+1.png", -0.5), ("-2.png", "+a"), ("b", "")])
    assert path.read_text() == "image,'@class\n'=1+1.png,-0.5\n'-2.png,'+a\nb,\n"
    text = files.csv_text([("\t=1", "\r=1", "\n=1", "a\r=1")])
    # What is read back as one row has no line within a cell that begins a row of its own.
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["'\t=1", "'\r=1", "'\n=1", "a\r=1"]]


def test_gzip_size_is_what_gzip_takes(tmp_path: Path):
    import gzip

    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 5000)
    assert abs(files.gzip_size(path) - len(gzip.compress(path.read_bytes(), 9))) < 16
