from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bloodedge.benchmarks.host import BenchmarkConfig
from bloodedge.benchmarks.model_work import model_work
from bloodedge.benchmarks.profile import files
from bloodedge.benchmarks.profile.files import read_profiles
from bloodedge.benchmarks.result import SCHEMA, BenchmarkResult, load_result
from bloodedge.benchmarks.runner import QUICK_IMAGES
from bloodedge.benchmarks.stage import (
    BenchmarkStageConfig,
    _roles,
    balanced_indices,
    benchmark,
    sample_indices,
)
from bloodedge.children import ChildError
from bloodedge.cli.app import app
from bloodedge.cli.benchmarking import _short, _table
from bloodedge.data.dataset import Dataset
from bloodedge.data.synthetic_set import write_npz
from bloodedge.errors import ConfigError, ModelError, RunError
from bloodedge.files import read_json, sha256_of, write_json
from bloodedge.runs import Manifest, Run, open_run


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(1, 80), st.integers(0, 9))
def test_a_balanced_draw_leaves_no_class_out_while_others_have_more(labels, count, seed):
    labels = np.array(labels)
    index = balanced_indices(labels, count, seed)
    assert len(index) == min(count, len(labels))
    assert len(set(index.tolist())) == len(index)
    assert (np.diff(index) > 0).all()
    taken = np.bincount(labels[index], minlength=4)
    available = np.bincount(labels, minlength=4)
    short = taken < available
    if short.any():
        assert taken.max() - taken[short].min() <= 1


def test_classes_that_few_images_leave_out_are_named(
    colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(sample_indices(colours, 2, 0)) == 2
    assert capsys.readouterr().err.count(": 3 or more show every class") == 1
    for images in (3, 0):
        index = sample_indices(colours, images, 0)
        assert len(index) == (images or len(colours["test"]))
        assert not capsys.readouterr().err


def test_the_run_holds_a_valid_result_and_the_models_digest(
    colours: Dataset, brightest_tflite: bytes, tmp_path: Path
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    config = BenchmarkStageConfig(
        (str(path), str(path)),
        "bench",
        images=30,
        threads=(1,),
        repeats=1,
        seconds=0.05,
        profile=True,
    )
    run, result = benchmark(config, colours)
    (row,) = result.rows
    assert row.accuracy == 1.0
    assert row.images == 30
    assert load_result(run.path / "benchmark.json").rows == result.rows
    assert run.manifest["kind"] == "benchmark"
    assert run.manifest["parents"] == {"brightest.tflite": sha256_of(path)}
    written = {"benchmark.json", "manifest.json", "profile.csv", "profile-1-brightest.png"}
    assert {p.name for p in run.path.iterdir()} == written
    (profile,) = read_profiles(run.path / "profile.csv")
    assert (profile.model, profile.threads) == ("brightest.tflite", 1)
    # What the model costs is in its row, so that any report can tell how far it is from the limit.
    assert row.work == model_work("brightest", brightest_tflite)
    assert result.peaks[0].threads == 1


def test_two_files_of_one_name_are_two_parents_and_two_lines(
    colours: Dataset, brightest_tflite: bytes, tmp_path: Path
):
    # What follows the model's end is no part of it: another digest, and the same answers.
    paths = [tmp_path / folder / "m.tflite" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(brightest_tflite + path.parent.name.encode())
    models = tuple(map(str, paths))
    settings: dict[str, Any] = {"images": 3, "threads": (1,), "repeats": 1, "seconds": 0.01}
    run, result = benchmark(BenchmarkStageConfig(models, "bench", **settings), colours)
    assert run.manifest["parents"] == {
        "a-m.tflite": sha256_of(paths[0]),
        "b-m.tflite": sha256_of(paths[1]),
    }
    shown = _table(result, colours.title)
    assert str(shown.title) == colours.title
    assert [*map(str, shown.columns[0].cells)] == ["a/m", "b/m"]


@pytest.mark.parametrize(
    ("paths", "roles"),
    [
        (["/x/a/m", "/x/a/n"], ["m", "n"]),
        (["/x/a/m", "/x/b/m", "/x/b/n"], ["a-m", "b-m", "n"]),
        (["/x/a/m", "/y/a/m"], ["/x/a/m", "/y/a/m"]),
        (["/x/a/m", "/x/b/m", "/x/a-m"], ["/x/a/m", "b-m", "/x/a-m"]),
    ],
)
def test_every_parent_has_a_name_of_its_own(paths: list[str], roles: list[str]):
    assert list(_roles([Path(path) for path in paths]).values()) == roles


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.tflite", "b.tflite"], ["a", "b"]),
        (["/x/y/a/m", "/x/y/b/m", "n"], ["a/m", "b/m", "n"]),
        (["/x/a/m", "/y/a/m"], ["x/a/m", "y/a/m"]),
        (["/x/m"], ["m"]),
        ([], []),
    ],
)
def test_paths_are_shown_without_what_they_share(names: list[str], shown: list[str]):
    assert list(_short(names).values()) == shown


def test_the_manifest_records_what_a_quick_look_used(
    colours: Dataset, brightest_tflite: bytes, tmp_path: Path
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    many = {**colours.splits, "test": colours["train"]}
    config = BenchmarkStageConfig((str(path),), "look", threads=(1,), quick=True)
    run, result = benchmark(config, replace(colours, splits=many))
    used = read_json(run.path / "benchmark.json")["config"]
    recorded = run.manifest["config"]
    assert (used["repeats"], used["seconds"]) == (2, 0.2)
    assert (recorded["repeats"], recorded["seconds"]) == (2, 0.2)
    assert recorded["quick"] is True
    # Fewer than there are.
    assert run.manifest["metrics"] == {"images": result.rows[0].images, "rows": 1}
    assert result.rows[0].images <= QUICK_IMAGES < len(colours["train"])


FAILED = {"model": "m.tflite", "threads": 1, "bytes": 5, "gzip_bytes": 25, "error": "no model"}


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, brightest_tflite: bytes):
    """Return a configuration whose measurement is ended by Ctrl-C when so many rows are there."""

    def configured(rows: int | None, **settings: Any) -> BenchmarkStageConfig:
        def run(config: BenchmarkConfig) -> BenchmarkResult:
            words = ("runtime", "runtime_version", "machine", "cpu_model")
            value = {"schema": SCHEMA, "complete": False, "rows": [FAILED] * (rows or 0)}
            value |= {"environment": dict.fromkeys(words, "x")}
            value |= {"config": {"repeats": config.repeats, "seconds": config.seconds}}
            if rows is not None:
                write_json(config.out, value)
                config.out.with_name("benchmark.json.partial").write_text("{}")
            raise KeyboardInterrupt

        monkeypatch.setattr("bloodedge.benchmarks.stage.run_benchmark", run)
        path = tmp_path / "m.tflite"
        path.write_bytes(brightest_tflite)
        return BenchmarkStageConfig((str(path),), "bench", images=3, profile=True, **settings)

    return configured


def test_ctrl_c_leaves_a_run_with_what_is_complete(colours: Dataset, interrupted):
    run, result = benchmark(interrupted(1, repeats=3), colours)
    assert result.complete is False
    assert [row.model for row in load_result(run.path / "benchmark.json").rows] == ["m.tflite"]
    # No profile, and nothing to go on from: what is there is final.
    assert {p.name for p in run.path.iterdir()} == {"benchmark.json", "manifest.json"}
    assert list(run.manifest["files"]) == ["benchmark.json"]
    assert run.manifest["config"]["repeats"] == 3


@pytest.mark.parametrize("rows", [None, 0])
def test_ctrl_c_before_anything_is_complete_leaves_no_run(
    rows: int | None, colours: Dataset, interrupted, isolated_runs: Path
):
    with pytest.raises(KeyboardInterrupt):
        benchmark(interrupted(rows), colours)
    assert list(isolated_runs.iterdir()) == []


def test_ctrl_c_puts_no_part_in_the_place_of_a_finished_run(
    colours: Dataset, interrupted, isolated_runs: Path, capsys: pytest.CaptureFixture[str]
):
    with open_run("bench") as run:
        (run.path / "benchmark.json").write_text("whole")
        run.commit(Manifest("benchmark", "bench", {}, {}, {}, {}, {}, 0, 0.0))
    with pytest.raises(KeyboardInterrupt):
        benchmark(interrupted(1, force=True), colours)
    assert (isolated_runs / "bench" / "benchmark.json").read_text() == "whole"
    said = capsys.readouterr().err
    assert "bench stays as it was" in said
    assert "--force --resume goes on" in said
    assert [p.name for p in (isolated_runs / ".bench.partial").iterdir()] == [
        "benchmark.json.partial"
    ]


def test_what_a_killed_benchmark_measured_is_not_measured_again(
    colours: Dataset,
    brightest_tflite: bytes,
    isolated_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    usual: dict[str, Any] = {"images": 30, "threads": (1,), "repeats": 3, "seconds": 0.01}
    journal = isolated_runs / ".bench.partial" / "benchmark.json.partial"

    def start(**settings: Any) -> tuple[Run, BenchmarkResult]:
        config = BenchmarkStageConfig((str(path),), "bench", **{**usual, **settings})
        return benchmark(config, colours)

    def kill_runner(runner: subprocess.Popen[bytes]) -> int:
        while not (journal.exists() and '"answer"' in journal.read_text()):
            time.sleep(0.01)
        runner.kill()
        return wait(runner)

    wait = subprocess.Popen.wait
    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "wait", kill_runner)
        with pytest.raises(ChildError, match=r"runner was ended by SIGKILL; .* with --resume"):
            start()
    measured = journal.read_text()
    assert list(journal.parent.iterdir()) == [journal]
    with pytest.raises(RunError, match="add --resume to continue it"):
        start()
    for other, what in (({"seed": 1}, "seed, sample"), ({"repeats": 4}, "repeats")):
        with pytest.raises(ConfigError, match="see its message above"):
            start(resume=True, **other)
        assert f"is of another run ({what} differ)" in capfd.readouterr().err
        assert journal.read_text() == measured
    run, result = start(resume=True)
    assert (result.complete, run.manifest["resumed"]) == (True, 1)
    (note,) = read_json(run.path / "benchmark.json")["notes"]
    assert note.startswith("resumed after ")
    assert {p.name for p in run.path.iterdir()} == {"benchmark.json", "manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "interrupted: the profiles by operator are not all kept"),
        (
            OSError(28, "No space left on device"),
            "the profiles by operator are not all kept: [Errno 28] No space left",
        ),
    ],
)
def test_profiles_that_fail_cost_nothing_that_was_measured(
    error: BaseException,
    said: str,
    colours: Dataset,
    brightest_tflite: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    monkeypatch.setattr(files, "save_profiles", Mock(side_effect=error))
    settings: dict[str, Any] = {"threads": (1,), "repeats": 1, "seconds": 0.01, "profile": True}
    run, result = benchmark(BenchmarkStageConfig((str(path),), "bench", 30, **settings), colours)
    assert result.complete
    assert {p.name for p in run.path.iterdir()} == {"benchmark.json", "manifest.json"}
    assert said in capsys.readouterr().err


def test_what_was_complete_when_it_was_killed_is_not_measured_again(
    colours: Dataset, brightest_tflite: bytes, isolated_runs: Path, tmp_path: Path, monkeypatch
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    settings: dict[str, Any] = {"threads": (1,), "repeats": 2, "seconds": 0.01, "profile": True}
    config = BenchmarkStageConfig((str(path),), "bench", 30, **settings)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(files, "save_profiles", Mock(side_effect=SystemExit))
        benchmark(config, colours)
    run, result = benchmark(replace(config, resume=True), colours)
    (note,) = read_json(run.path / "benchmark.json")["notes"]
    assert (result.complete, note) == (True, "resumed after 2 processes")
    assert not (run.path / "benchmark.json.partial").exists()


def test_ctrl_c_in_the_command_keeps_its_promises(
    brightest_tflite: bytes, colours: Dataset, isolated_runs: Path, tmp_path: Path
):
    (tmp_path / "brightest.tflite").write_bytes(brightest_tflite)
    write_npz(tmp_path / "colours.npz", colours)
    command = [sys.executable, "-m", "bloodedge", "benchmark", "brightest.tflite"]
    command += ["--data", "colours.npz", "--threads", "1", "--repeats", "500", "--seconds", "0.01"]
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    # As a terminal does, every process of the command is told.
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        assert process.stderr is not None
        assert any(line.startswith("[1/500]") for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 1, said
    assert "--resume" not in said
    result = load_result(isolated_runs / "benchmark" / "benchmark.json")
    assert (result.complete, len(result.rows)) == (False, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--timeout 600", "--timeout without --browser"),
        ("--serial x --delegate cpu", "--serial, --delegate without --adb"),
        ("--adb --keep", "--keep without --ssh"),
        ("--adb --browser", "more than one of --browser, --adb and --ssh"),
        ("--ssh pi@pi --device mine", "--device without --browser or --adb"),
        ("--ssh pi@pi --resume", "--resume with --ssh; expected it here alone"),
        ("--browser --threads 1 --profile", "--threads, --profile with --browser"),
        ("--quick --repeats 9 --seconds 5", "--quick with --repeats and --seconds"),
        ("--quick --seconds 2", "--quick with --seconds"),
    ],
)
def test_options_without_effect_are_refused(options: str, message: str):
    done = CliRunner().invoke(app, ["benchmark", "m.tflite", *options.split()])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(message)


def test_a_keras_run_is_refused_with_the_command_that_helps(colours: Dataset):
    with open_run("small") as run:
        (run.path / "model.keras").write_bytes(b"x")
        run.commit(Manifest("train", "small", {}, {}, {}, {}, {}, 0, 0.0))
    with pytest.raises(ModelError, match="bloodedge export small --tflite"):
        benchmark(BenchmarkStageConfig(("small",), "bench"), colours)


@pytest.mark.parametrize(
    "bad",
    [
        {"models": ()},
        {"images": -1},
        {"quick": True, "repeats": 5},
        {"threads": (1, 1)},
        {"repeats": 0},
        {"seconds": 0.0},
    ],
)
def test_bad_settings_are_refused_when_built(bad):
    with pytest.raises(ConfigError):
        BenchmarkStageConfig(**{"models": ("a",), "name": "b", **bad})
