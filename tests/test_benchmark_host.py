from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.benchmarks import runner
from bloodedge.benchmarks.host import BenchmarkConfig, _command, check_threads, run_benchmark
from bloodedge.benchmarks.model_work import Work
from bloodedge.benchmarks.result import SCHEMA, load_result
from bloodedge.errors import ConfigError, DataError

MEASURED: dict[str, Any] = {
    "model": "a.tflite",
    "threads": 1,
    "bytes": 2000,
    "gzip_bytes": 1000,
    "median_us": 100.5,
    "p90_us": 120,
    "p99_us": 150.0,
    "min_us": 90.0,
    "load_ms": 3.0,
    "first_ms": 0.5,
    "peak_rss_kib": 512,
    "accuracy": 0.75,
    "images": 20,
    "spread": 0.02,
    "drift": False,
    "error": None,
    "delegate": "",
}
# What is read from other fields, or is not there.
MORE: dict[str, Any] = {
    "timed": (),
    "xnnpack": None,
    "predictions": "",
    "repeats": 0,
    "note": "",
    "work": None,
}
FAILED: dict[str, Any] = {
    "model": "b.tflite",
    "threads": 1,
    "bytes": 5,
    "gzip_bytes": 25,
    "error": "ValueError: no model",
}
RESULT: dict[str, Any] = {
    "schema": "bloodedge-benchmark/1",
    "complete": True,
    "environment": {
        "runtime": "ai_edge_litert",
        "runtime_version": "2.3.0",
        "machine": "aarch64",
        "cpu_model": "Raspberry Pi 4 Model B",
    },
    "rows": [MEASURED, FAILED],
}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras
    import tensorflow as tf

    inputs = keras.Input(batch_shape=(1, 16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    x = keras.layers.Flatten()(x)
    net = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    path = tmp_path_factory.mktemp("host") / "float.tflite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(net).convert())
    return path


# ---- the configuration ----

BAD_CONFIGS: dict[str, dict[str, Any]] = {
    "no models": {"models": ()},
    "a model twice": {"models": (Path("m.tflite"), Path("m.tflite"))},
    "no threads": {"threads": ()},
    "negative threads": {"threads": (-1,)},
    "threads twice": {"threads": (1, 1)},
    "no repeats": {"repeats": 0},
    "repeats that no report reads": {"repeats": 1001},
    "no time": {"seconds": 0.0},
    "not a time": {"seconds": float("nan")},
    "more than a day": {"seconds": 1e6},
    "negative seed": {"seed": -1},
    "quick and repeats": {"quick": True, "repeats": 3},
    "quick and seconds": {"quick": True, "seconds": 1.0},
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_configuration_is_refused_when_built(name: str) -> None:
    values = {"models": (Path("m.tflite"),), "sample": None, "out": Path("r.json")}
    with pytest.raises(ConfigError):
        BenchmarkConfig(**{**values, **BAD_CONFIGS[name]})


@pytest.mark.parametrize(
    ("threads", "said"),
    [
        ((), "--threads none; expected one count or more, 0 for every core"),
        ((1, 1), "--threads 1,1: 1 is there twice; expected each count once"),
        ((2, -1), "--threads 2,-1: -1; expected 0 (every core) to 8"),
        ((9,), "--threads 9: 9; expected 0 (every core) to 8"),
    ],
)
def test_which_thread_count_is_wrong_is_said(threads: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_threads(threads, 8)
    assert str(refused.value) == said
    check_threads((8, 1, 0), 8)


# ---- reading a result ----


def test_a_result_is_read_field_by_field(tmp_path: Path) -> None:
    result = load_result(write(tmp_path / "r.json", RESULT))
    assert result.complete is True
    assert result.runtime == "ai_edge_litert 2.3.0"
    assert result.hardware == "Raspberry Pi 4 Model B (aarch64)"
    good, bad = result.rows
    assert {field.name: getattr(good, field.name) for field in fields(good)} == MEASURED | MORE
    assert bad.error == "ValueError: no model"
    assert (bad.median_us, bad.peak_rss_kib, bad.accuracy, bad.images) == (None, None, None, 0)


def test_what_newer_runners_add_is_read_and_damage_in_it_refused(tmp_path: Path) -> None:
    work = {"macs_int8": 4, "macs_float": 3, "traffic_bytes": 2, "resident_bytes": 1}
    row = {**MEASURED, "note": "images are fitted", "work": work}
    copy_speeds = [{"resident_bytes": 8, "gb_s": 2.0}]
    more = {
        "rows": [row],
        "peaks": [{"threads": 1, "int8_gmacs": 8.0, "copy": copy_speeds}],
        "noise": {"verdict": "noisy", "reasons": ["a loop varies"]},
    }
    result = load_result(write(tmp_path / "r.json", {**RESULT, **more}))
    assert result.rows[0].note == "images are fitted"
    assert (result.rows[0].work, result.peaks[0].int8_gmacs) == (Work(4, 3, 2, 1), 8.0)
    assert result.noise is not None
    assert (result.noise.verdict, result.noise.reasons) == ("noisy", ("a loop varies",))
    # What older runners wrote has none of it.
    assert load_result(write(tmp_path / "r.json", RESULT)).noise is None
    for wrong in ({"peaks": 3}, {"noise": []}, {"rows": [{**row, "work": 3}]}):
        with pytest.raises(DataError):
            load_result(write(tmp_path / "r.json", {**RESULT, **more, **wrong}))


def test_a_result_without_a_sample_has_no_accuracy(tmp_path: Path) -> None:
    row = {**MEASURED, "accuracy": None, "images": 0}
    result = load_result(write(tmp_path / "r.json", {**RESULT, "rows": [row]}))
    assert (result.rows[0].accuracy, result.rows[0].images) == (None, 0)


def test_another_protocol_may_lack_figures_and_names_what_ran_each_row(tmp_path: Path) -> None:
    unknown = {**MEASURED, "peak_rss_kib": None, "p90_us": None, "delegate": "gpu"}
    value = {**RESULT, "rows": [{**MEASURED, "delegate": "cpu"}, unknown], "protocol": "android"}
    result = load_result(write(tmp_path / "r.json", value))
    assert (result.protocol, result.emulated) == ("android", False)
    assert [row.delegate for row in result.rows] == ["cpu", "gpu"]
    assert (result.rows[1].peak_rss_kib, result.rows[1].p90_us) == (None, None)
    assert result.rows[1].median_us == MEASURED["median_us"]


@pytest.mark.parametrize("key", [key for key in MEASURED if key not in ("error", "accuracy")])
@pytest.mark.parametrize("value", [None, "text\x1b", -1, [], {}])
def test_a_wrong_field_is_one_clear_error(key: str, value: object, tmp_path: Path) -> None:
    row = {**MEASURED, key: value}
    with pytest.raises(DataError, match=f"`{key}`"):
        load_result(write(tmp_path / "r.json", {**RESULT, "rows": [row]}))


# The last two are so small that no axis of a plot reaches as far.
@pytest.mark.parametrize("value", [10**400, 1e-300, 5e-324])
def test_a_number_that_is_no_measurement_is_refused(value: object, tmp_path: Path) -> None:
    rows = [{**MEASURED, "median_us": value}]
    with pytest.raises(DataError, match="`median_us`"):
        load_result(write(tmp_path / "r.json", {**RESULT, "rows": rows}))


@pytest.mark.parametrize("value", [1.5, -0.1, "high", True])
def test_an_accuracy_is_a_proportion(value: object, tmp_path: Path) -> None:
    rows = [{**MEASURED, "accuracy": value}]
    with pytest.raises(DataError, match="`accuracy`"):
        load_result(write(tmp_path / "r.json", {**RESULT, "rows": rows}))


@pytest.mark.parametrize("key", RESULT)
def test_a_missing_part_is_refused(key: str, tmp_path: Path) -> None:
    value = copy.deepcopy(RESULT)
    del value[key]
    with pytest.raises(DataError, match=key):
        load_result(write(tmp_path / "r.json", value))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {**RESULT, "schema": "bloodedge-benchmark/2"},
        {**RESULT, "complete": 1},
        {**RESULT, "protocol": "guess"},
        {**RESULT, "protocol": None},
        {**RESULT, "emulated": "no"},
        {**RESULT, "rows": [MEASURED, MEASURED]},
        {**RESULT, "rows": ["row"]},
        {**RESULT, "rows": [{**FAILED, "error": 5}]},
        {**RESULT, "environment": {**RESULT["environment"], "machine": None}},
    ],
)
def test_another_structure_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_result(write(tmp_path / "r.json", value))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}", "\udcff"]
)
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"r\.json"):
        load_result(path)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_result(tmp_path / "absent.json")
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(DataError, match="16 MiB"):
        load_result(huge)


# ---- running ----


def test_the_reader_and_the_runner_name_the_same_schema() -> None:
    assert runner.SCHEMA == SCHEMA


def test_a_benchmark_runs_to_a_result(model: Path, tmp_path: Path) -> None:
    sample, out = tmp_path / "s.npz", tmp_path / "new" / "r.json"
    np.savez(sample, images=np.zeros((3, 16, 16, 3), dtype=np.uint8), labels=np.arange(3))
    bad = tmp_path / "-bad.tflite"
    bad.write_bytes(b"no model")
    config = BenchmarkConfig((model, bad), sample, out, threads=(1,), quick=True)
    result = run_benchmark(config)
    assert result.path == out
    assert result.complete is True
    good, failed = result.rows
    assert good.median_us is not None
    assert good.median_us > 0
    # All three images are black, so they share one class, and the labels are all different.
    assert good.accuracy in (0.0, pytest.approx(1 / 3))
    assert good.images == 3
    assert failed.model == "-bad.tflite"
    assert failed.error
    with pytest.raises(ConfigError, match="exists"):
        run_benchmark(config)


def test_what_the_runner_refuses_is_a_configuration_error(model: Path, tmp_path: Path) -> None:
    config = BenchmarkConfig((model,), None, tmp_path / "r.json", threads=(1000,))
    with pytest.raises(ConfigError, match="message above"):
        run_benchmark(config)


def test_missing_files_are_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tflite"):
        run_benchmark(BenchmarkConfig((tmp_path / "absent.tflite",), None, tmp_path / "r.json"))


def measuring(
    model: Path, out: Path, hang_up: str = "SIG_DFL", seconds: float = 0.1, until: str = "[1/50]"
) -> subprocess.Popen[str]:
    """Return a process that measures and has said something; SIGHUP is to it what is said here."""
    code = (
        "import signal, sys; from pathlib import Path; from bloodedge.benchmarks.host import *;"
        f"signal.signal(signal.SIGHUP, signal.{hang_up}); m, o = map(Path, sys.argv[1:]);"
        "run_benchmark(BenchmarkConfig((m,), None, o, threads=(1,), repeats=50,"
        f"seconds={seconds}))"
    )
    command = [sys.executable, "-c", code, str(model), str(out)]
    # In the repository's root, which `python -c` would import from, `bloodedge` has no stages.
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "cwd": out.parent}
    process = subprocess.Popen(command, start_new_session=True, **options)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(until):
            break
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_kill_wait_for_the_runner_to_write(
    number: signal.Signals, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    with measuring(model, out) as process:
        assert process.stderr is not None
        process.send_signal(number)
        assert process.stderr.read().rstrip().endswith(f"Stopped: {number.name}")
    result = load_result(out)
    assert result.complete is False
    assert len(result.rows) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
@pytest.mark.parametrize("everybody", [False, True])
def test_a_closed_terminal_waits_for_the_runner_to_write(
    everybody: bool, model: Path, tmp_path: Path
) -> None:
    with measuring(model, tmp_path / "r.json") as process:
        assert process.stderr is not None
        if everybody:
            process.stderr.close()
            os.killpg(process.pid, signal.SIGHUP)
        else:
            process.send_signal(signal.SIGHUP)
    result = load_result(tmp_path / "r.json")
    assert result.complete is False
    assert len(result.rows) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_the_runner_ends_when_nobody_waits_for_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with measuring(model, out) as process:
        assert process.stderr is not None
        process.kill()
        # To the end: until the runner, which writes there as well, is gone.
        process.stderr.read()
    assert load_result(out).complete is False
    # What --resume goes on from.
    assert out.with_name("r.json.partial").exists()


def workers_of(model: Path) -> list[Path]:
    """Return the processes, in /proc, that measure a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile.
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"--worker" in words and str(model).encode() in words[-2]:
                found.append(folder)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_the_runner_does_not_finish_a_long_job_for_nobody(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with measuring(model, out, seconds=40, until="the machine's own peaks") as process:
        assert process.stderr is not None
        while not workers_of(model):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        killed = time.monotonic()
        # Until the runner is gone.
        process.stderr.read()
    assert time.monotonic() - killed < 30
    assert not workers_of(model)
    assert load_result(out).complete is False


def test_paths_that_start_with_a_dash_are_no_options() -> None:
    model, sample, out, facts = (Path("-runs") / name for name in "mslf")
    config = BenchmarkConfig((model,), sample, out, (1,), facts=facts)
    told = runner.parse(_command(config)[2:])
    assert (told.models, told.sample, told.out, told.facts) == ([model], sample, out, facts)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_under_nohup_a_closed_terminal_ends_nothing(model: Path, tmp_path: Path) -> None:
    with measuring(model, tmp_path / "r.json", "SIG_IGN") as process:
        assert process.stderr is not None
        os.killpg(process.pid, signal.SIGHUP)
        assert any(line.startswith("[3/50]") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert load_result(tmp_path / "r.json").complete is False
