from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.benchmarks import runner

RUNNER = Path(runner.__file__)
SIDE = 16
IMAGES = 20


def run_runner(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUNNER), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def write_sample(path: Path, **arrays: NDArray[Any]) -> Path:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    # The edges of the range are there, so that the int8 input's scale is 1.
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    whole: dict[str, Any] = {"images": images, "labels": rng.integers(0, 4, IMAGES), **arrays}
    np.savez(path, **whole)
    return path


def convert(images: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Return one small model as float32 and as full int8 with uint8 input and output."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    plain = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([i[None].astype(np.float32)] for i in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return plain, converter.convert()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with float.tflite, int8.tflite, corrupt.tflite and sample.npz."""
    path = tmp_path_factory.mktemp("runner")
    with np.load(write_sample(path / "sample.npz")) as arrays:
        images = arrays["images"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, quantized = convert(images)
    (path / "float.tflite").write_bytes(plain)
    (path / "int8.tflite").write_bytes(quantized)
    (path / "corrupt.tflite").write_bytes(plain[: len(plain) // 2])
    return path


@pytest.fixture(scope="session")
def measured(folder: Path) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    names = ("float.tflite", "corrupt.tflite", "int8.tflite")
    settings = ("--sample", folder / "sample.npz", "--threads", "1", "--quick")
    out = folder / "result.json"
    done = run_runner(*(folder / name for name in names), *settings, "--out", out)
    result: dict[str, Any] = json.loads(out.read_text())
    return result, done


# ---- statistics ----


def test_summarize_has_the_closed_form_of_an_arithmetic_series() -> None:
    # 0, 1, ..., 100 us: the p-th percentile is p.
    figures = runner.summarize(np.random.default_rng(0).permutation(101) * 1000)
    expected = {"median_us": 50, "p90_us": 90, "p99_us": 99, "min_us": 0, "mean_us": 50}
    assert figures == {**expected, "count": 101}


def test_summarize_interpolates_between_neighbours() -> None:
    figures = runner.summarize(np.array([1000, 2000]))
    assert (figures["median_us"], figures["p90_us"], figures["p99_us"]) == (1.5, 1.9, 1.99)


def figures_of(median_us: float) -> dict[str, Any]:
    keys = ("with_input_median_us", "load_ms", "first_ms", "peak_rss_kib", "max_rss_kib")
    return {"median_us": median_us, **dict.fromkeys(keys, median_us)}


def test_combine_takes_the_median_of_medians_and_pools_the_percentiles() -> None:
    runs = [figures_of(value) for value in (10.0, 15.0, 11.0)]
    # One process has far more durations, and they pull the pooled median, not the row's.
    row = runner.combine(runs, np.array([10_000, 11_000] + [15_000] * 98))
    assert row["median_us"] == row["with_input_median_us"] == 11.0
    assert (row["min_us"], row["p99_us"], row["count"]) == (10.0, 15.0, 100)
    assert row["spread"] == pytest.approx(5 / 11, abs=1e-4)
    assert row["drift"] is True
    assert (row["load_ms"], row["peak_rss_kib"], row["repeats"]) == (11.0, 15.0, 3)


@pytest.mark.parametrize(
    ("medians", "drift"),
    [([100.0], False), ([100.0, 109.0], False), ([100.0, 100.0, 111.0], True)],
)
def test_drift_is_more_than_ten_per_cent(medians: list[float], drift: bool) -> None:
    row = runner.combine([figures_of(value) for value in medians], np.array([1000]))
    assert row["drift"] is drift


def test_schedule_is_shuffled_seeded_and_every_round_is_whole() -> None:
    names = [f"m{i}" for i in range(6)]
    jobs = runner.schedule(names, [1, 2], 3, seed=5)
    assert jobs == runner.schedule(names, [1, 2], 3, seed=5)
    assert jobs != runner.schedule(names, [1, 2], 3, seed=6)
    pairs = [(name, count) for name in names for count in (1, 2)]
    rounds = [jobs[i : i + 12] for i in range(0, 36, 12)]
    for number, block in enumerate(rounds):
        assert {job.repeat for job in block} == {number}
        assert sorted((job.model, job.threads) for job in block) == pairs
        assert [(job.model, job.threads) for job in block] != pairs
    orders = {tuple((job.model, job.threads) for job in block) for block in rounds}
    assert len(orders) == len(rounds)


# ---- inputs ----


@pytest.mark.parametrize(("scale", "zero_point"), [(1.0, -128), (0.75, -60), (2.5, 0)])
def test_quantization_error_is_at_most_half_a_step(scale: float, zero_point: int) -> None:
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    values = np.random.default_rng(1).uniform(low, high, 10_000)
    restored = (runner.quantize(values, scale, zero_point).astype(float) - zero_point) * scale
    assert np.abs(restored - values).max() <= scale / 2 + 1e-9


def test_quantize_saturates_instead_of_wrapping() -> None:
    assert runner.quantize(np.array([-1e6, 1e6]), 1.0, 0).tolist() == [-128, 127]


def detail(dtype: type, scale: float = 0.0, zero_point: int = 0) -> dict[str, Any]:
    shape = np.array([1, 2, 2, 3])
    return {"shape": shape, "dtype": dtype, "quantization": (scale, zero_point)}


def test_prepare_gives_each_input_type_the_same_picture() -> None:
    image = np.array([0, 1, 127, 128, 254, 255] * 2, dtype=np.uint8).reshape(1, 2, 2, 3)
    whole = image.astype(int)
    as_float = runner.prepare(image, detail(np.float32))
    assert as_float.dtype == np.float32
    assert np.array_equal(as_float, whole)
    # Bytes go in as they are, whatever scaling was folded into the quantization.
    assert np.array_equal(runner.prepare(image, detail(np.uint8, 1 / 127.5, 128)), image)
    as_int8 = runner.prepare(image, detail(np.int8, 1.0, -128))
    assert as_int8.dtype == np.int8
    assert np.array_equal(as_int8.astype(int), whole - 128)


def test_int8_that_was_made_for_scaled_pixels_takes_the_bytes_less_128() -> None:
    # x / 127.5 - 1, quantized with scale 1 / 127.5 and zero point 0, is x - 127.5.
    image = np.array([0, 1, 127, 128, 254, 255] * 2, dtype=np.uint8).reshape(1, 2, 2, 3)
    fed = runner.prepare(image, detail(np.int8, 1 / 127.5, 0)).astype(float)
    assert np.abs(fed - (image / 127.5 - 1) * 127.5).max() <= 0.5 + 1e-9


def test_float_takes_pixels_scaled_as_asked() -> None:
    image = np.array([0, 51, 255] * 4, dtype=np.uint8).reshape(1, 2, 2, 3)
    fed = runner.prepare(image, detail(np.float32), (127.5, 127.5))
    assert fed.dtype == np.float32
    assert fed[0, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])


def test_prepare_refuses_what_it_cannot_feed() -> None:
    with pytest.raises(runner.RunnerError, match="expected float32, uint8 or int8"):
        runner.prepare(np.zeros((1, 2, 2, 3), dtype=np.uint8), detail(np.int64))


# ---- the sample ----

BAD_ARRAYS: dict[str, dict[str, NDArray[Any]]] = {
    "grey": {"images": np.zeros((IMAGES, 16, 16), dtype=np.uint8)},
    "four channels": {"images": np.zeros((IMAGES, 16, 16, 4), dtype=np.uint8)},
    "float images": {"images": np.zeros((IMAGES, 16, 16, 3))},
    "no images": {"images": np.zeros((0, 16, 16, 3), dtype=np.uint8)},
    "too few labels": {"labels": np.zeros(IMAGES - 1, dtype=int)},
    "column of labels": {"labels": np.zeros((IMAGES, 1), dtype=int)},
    "float labels": {"labels": np.zeros(IMAGES)},
    "pickled": {"labels": np.array([{}] * IMAGES, dtype=object)},
    "pickled images": {"images": np.array([{}] * IMAGES, dtype=object)},
    "by column": {"images": np.zeros((IMAGES, 16, 16, 3), dtype=np.uint8, order="F")},
    "class names that are numbers": {"class_names": np.arange(4)},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_a_wrong_sample_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(runner.RunnerError, match="sample"):
        runner.open_sample(write_sample(tmp_path / "s.npz", **BAD_ARRAYS[name]))


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04" + bytes(60)])
def test_a_damaged_sample_is_refused(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    path.write_bytes(damage)
    with pytest.raises(runner.RunnerError, match="cannot be read"):
        runner.open_sample(path)


def test_a_sample_that_unpacks_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SAMPLE_LIMIT_BYTES", 1000)
    with pytest.raises(runner.RunnerError, match="unpacks"):
        runner.open_sample(write_sample(tmp_path / "s.npz"))


# ---- the runtime ----


def only(module: str) -> Callable[[str], object]:
    return lambda name: name if name == module else None


def test_tflite_runtime_with_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", only("tflite_runtime"))
    monkeypatch.setattr(np, "__version__", "2.0.1")
    with pytest.raises(runner.RunnerError, match="numpy<2"):
        runner.find_runtime()
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert runner.find_runtime()[0] == "tflite_runtime"


def test_a_runtime_that_numpy_forbids_is_passed_over_for_one_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = ("tflite_runtime", "tensorflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(np, "__version__", "2.0.1")
    assert runner.find_runtime()[0] == "tensorflow"
    with pytest.raises(runner.RunnerError, match="numpy<2"):
        runner.find_runtime("tflite_runtime")
    with pytest.raises(runner.RunnerError, match="pip install ai-edge-litert"):
        runner.find_runtime("ai_edge_litert")


# TensorFlow tells its users to use LiteRT.
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", ["ai_edge_litert", "tensorflow"])
def test_each_runtime_has_its_interpreter_where_the_runner_looks(name: str, folder: Path) -> None:
    module = runner.find_runtime(name)[2]
    interpreter = importlib.import_module(module).Interpreter(
        model_path=str(folder / "int8.tflite"), num_threads=1
    )
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, SIDE, SIDE, 3]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", ["ai_edge_litert", "tensorflow"])
def test_a_model_in_a_folder_whose_name_is_no_utf_8_is_loaded(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfc")) / "int8.tflite"
    model.parent.mkdir()
    model.write_bytes((folder / model.name).read_bytes())
    interpreter_class = importlib.import_module(runner.find_runtime(name)[2]).Interpreter
    interpreter, _ = runner.load(interpreter_class, {"model": str(model), "threads": 1})
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, SIDE, SIDE, 3]


def test_no_runtime_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", only("nothing"))
    with pytest.raises(runner.RunnerError, match="pip install ai-edge-litert"):
        runner.find_runtime()


# ---- the machine ----


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys with two slow CPUs, two fast ones, and two temperature sensors."""
    files = {f"devices/system/cpu/cpu{i}/cpufreq/scaling_governor": "ondemand" for i in range(4)}
    limits = (1800, 1800, 2400, 2400)
    for i, khz in enumerate(limits):
        files[f"devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq"] = str(khz)
        files[f"devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq"] = str(khz - 100)
    files["devices/system/cpu/cpu3/cpufreq/scaling_cur_freq"] = "<unknown>"
    files["class/thermal/thermal_zone0/temp"] = "48312"
    files["class/thermal/thermal_zone1/temp"] = "-500"
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(runner, "SYS", tmp_path)
    return tmp_path


def test_clocks_and_temperatures_are_read(board: Path) -> None:
    state = runner.machine_state()
    assert state["governor"] == ["ondemand"]
    assert state["cpu_khz"] == [1700, 1700, 2300]
    assert state["temperature_c"] == [48.312, -0.5]


def test_threads_are_bound_to_the_fastest_cpus(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[list[int]] = []
    monkeypatch.setattr(runner, "cpus_allowed", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: bound.append(cpus), raising=False)
    assert [runner.pin(count) for count in (1, 2, 3, 4)] == bound
    assert bound == [[3], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_throttling_bits_come_from_the_firmware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text("#!/bin/sh\necho throttled=0x50005\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert runner.throttling() == "0x50005"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert runner.throttling() is None


def test_without_the_firmwares_tool_the_bits_come_from_the_kernel(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert runner.throttling() is None
    path = board / "devices/platform/soc/soc:firmware/get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text("50005\n")
    assert runner.throttling() == "0x50005"
    for cpu, count in enumerate((3, 4)):
        path = board / f"devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count"
        path.parent.mkdir(parents=True)
        path.write_text(f"{count}\n")
    assert runner.machine_state()["throttle_count"] == 7


# ---- the file itself ----


# Of the standard library, by name, what came after 3.8 and one might reach for.
NEWER = {
    "removeprefix", "removesuffix", "is_relative_to", "with_stem", "readlink", "hardlink_to",
    "file_digest", "bit_count", "pairwise", "batched", "cache", "randbytes", "to_thread",
    "nextafter", "ulp", "lcm", "stdlib_module_names", "orig_argv", "pidfd_open", "walk_up",
    "unparse",
}  # fmt: skip


def test_the_runner_is_valid_python_3_8_and_needs_only_numpy() -> None:
    tree = ast.parse(RUNNER.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg in ("strict", "root_dir", "dirs_exist_ok"):
            used.add(node.arg)
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    assert not used & (NEWER | {"strict", "root_dir"})


@pytest.mark.parametrize("missing", ["numpy", "importlib.metadata"])
def test_without_numpy_or_on_python_3_7_it_says_so_in_a_line(missing: str, tmp_path: Path) -> None:
    # None in sys.modules makes an import fail as if the module were not there.
    code = f"import sys, runpy; sys.modules[{missing!r}] = None; sys.argv[1:] = ['--help']\n"
    code += f"runpy.run_path({str(RUNNER)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.8 or newer and NumPy are needed: ")
    assert done.stderr.count("\n") == 1


# ---- arguments ----


def test_all_cpus_is_0_and_a_count_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "cpus_allowed", lambda: [0, 1, 2, 3])
    assert runner.thread_counts("1,0") == [1, 4]
    monkeypatch.setattr(runner, "cpus_allowed", lambda: [0])
    assert runner.thread_counts("1,0") == [1]


BAD_ARGUMENTS = {
    "no models": ["--out", "r.json"],
    "no out": ["m.tflite"],
    "missing model": ["absent.tflite", "--out", "r.json"],
    "missing sample": ["m.tflite", "--out", "r.json", "--sample", "absent.npz"],
    "same model twice": ["m.tflite", "./m.tflite", "--out", "r.json"],
    "out exists": ["m.tflite", "--out", "taken.json"],
    "no folder for out": ["m.tflite", "--out", "absent/r.json"],
    "out is this folder": ["m.tflite", "--out", "."],
    "out is another folder": ["m.tflite", "--out", "..", "--force"],
    "too many threads": ["m.tflite", "--out", "r.json", "--threads", "100000"],
    "threads no number": ["m.tflite", "--out", "r.json", "--threads", "all"],
    "no repeats": ["m.tflite", "--out", "r.json", "--repeats", "0"],
    "repeats that no report reads": ["m.tflite", "--out", "r.json", "--repeats", "1001"],
    "seconds not finite": ["m.tflite", "--out", "r.json", "--seconds", "nan"],
    "warm-up negative": ["m.tflite", "--out", "r.json", "--warmup", "-1"],
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_exit_2_and_touch_nothing(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(b"model")
    Path("taken.json").write_text("mine")
    # What it does to them would meet the tests that follow.
    monkeypatch.setattr(runner, "on_stop", lambda handler: None)
    try:
        code = runner.main(BAD_ARGUMENTS[name])
    except SystemExit as stop:  # argparse's own errors
        code = int(str(stop.code))
    assert code == 2
    assert "error: " in capsys.readouterr().err
    assert Path("taken.json").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["m.tflite", "taken.json"]


def test_models_of_one_name_in_two_folders_keep_their_paths(tmp_path: Path) -> None:
    models = [tmp_path / folder / "m.tflite" for folder in "ab"] + [tmp_path / "other.tflite"]
    for path in models:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"model")
    args = runner.parse([*map(str, models), "--out", str(tmp_path / "r.json")])
    runner.check(args)
    assert list(args.names) == [str(models[0]), str(models[1]), "other.tflite"]


@pytest.mark.parametrize("name", ["a\nb.tflite", os.fsdecode(b"caf\xe9.tflite")])
def test_a_name_that_a_reader_of_the_result_refuses_is_not_measured(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"model")
    args = runner.parse([str(tmp_path / name), "--out", str(tmp_path / "r.json")])
    with pytest.raises(runner.RunnerError, match="tflite: rename it"):
        runner.check(args)


def test_quick_fills_in_only_what_was_not_given() -> None:
    args = runner.parse(["m.tflite", "--out", "r.json", "--quick", "--repeats", "9"])
    assert (args.repeats, args.seconds, args.warmup) == (9, 0.2, 0.1)


# ---- the result file ----


def test_a_file_that_appeared_during_the_run_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    out.write_text("mine")
    with pytest.raises(runner.RunnerError, match="appeared"):
        runner.write_result({"a": 1}, out, force=False)
    assert out.read_text() == "mine"
    (beside,) = tmp_path.glob("r-*.json")
    assert json.loads(beside.read_text()) == {"a": 1}


def test_a_result_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        runner.write_result({"a": float("nan")}, tmp_path / "r.json", force=False)
    assert list(tmp_path.iterdir()) == []


# ---- workers that die ----


def fake_runtime(path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return a worker's spec for a runtime whose Interpreter does what `body` says."""
    (path / "fake.py").write_text(f"import os, time\ndef Interpreter(**_):\n    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(path))
    spec = {"module": "fake", "threads": 1, "sample": None, "model": "m", "seed": 0}
    return {**spec, "score": 0, "seconds": 0.1, "warmup": 0.0, "least": 5, "scaling": [0, 1]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.abort()", "SIGABRT in the runtime: damaged model?"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV in the runtime: damaged model?"),
        ("os.kill(os.getpid(), 9)", "SIGKILL in the runtime: out of memory?"),
        ("os.kill(os.getpid(), 4)", "SIGILL in the runtime: made for another processor?"),
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
        ("raise ValueError('bad\\x1b[2J model')", "ValueError: bad?[2J model"),
    ],
)
def test_a_worker_that_dies_is_one_line(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = runner.run_job(fake_runtime(tmp_path, body, monkeypatch), timeout=60)
    assert list(answer)[:1] == ["error"]
    assert message in answer["error"]
    assert answer["error"].isprintable()


def test_a_worker_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = runner.run_job(fake_runtime(tmp_path, "time.sleep(60)", monkeypatch), timeout=1)
    assert answer == {"error": "no answer within 1 s"}


# ---- measuring ----


def test_a_corrupt_model_is_an_error_and_the_others_are_measured(
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    result, done = measured
    assert done.returncode == 1
    assert result["schema"] == "bloodedge-benchmark/1"
    assert result["complete"] is True
    names = [row["model"] for row in result["rows"]]
    assert names == ["float.tflite", "corrupt.tflite", "int8.tflite"]
    good, bad = [result["rows"][i] for i in (0, 2)], result["rows"][1]
    assert bad["error"]
    assert "median_us" not in bad
    assert bad["error"] in done.stderr
    for row in good:
        assert row["error"] is None
        assert 0 < row["min_us"] <= row["median_us"]
        assert row["p90_us"] <= row["p99_us"]
        assert row["repeats"] == len(row["runs"]) == 2


def test_every_process_reports_its_own_figures(
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    for row in (measured[0]["rows"][i] for i in (0, 2)):
        assert row["count"] == sum(run["count"] for run in row["runs"])
        for run in row["runs"]:
            assert run["count"] >= runner.MIN_INVOKES
            assert run["load_ms"] > 0
            assert run["first_ms"] > 0
            assert run["with_input_median_us"] >= run["median_us"]
            assert run["ru_maxrss_kib"] > 0
            assert run["max_rss_kib"] - run["rss_before_kib"] == run["peak_rss_kib"]
            # A tiny model: the figure is KiB and its process's own, not pytest's TensorFlow.
            assert 0 <= run["peak_rss_kib"] < 64 * 1024
            if hasattr(os, "sched_setaffinity"):
                assert len(run["cpus"]) == 1


def test_the_time_to_hand_over_the_input_is_no_part_of_the_latency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, given = [0], []

    class Interpreter:
        def set_tensor(self, index: int, values: Any) -> None:
            given.append(values)
            now[0] += 5000

        def invoke(self) -> None:
            now[0] += 3000

    with monkeypatch.context() as patch:
        patch.setattr(runner.time, "perf_counter_ns", lambda: now[0])
        alone, with_input = runner.time_invokes(Interpreter(), 0, ["a", "b"], 0.0, 3)
    assert (alone.tolist(), with_input.tolist()) == ([3000] * 3, [8000] * 3)
    assert given == ["a", "b", "a"]


def test_a_process_warms_up_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Interpreter:
        def __init__(self, model_path: str, num_threads: int) -> None: ...

        def allocate_tensors(self) -> None: ...

        def get_input_details(self) -> list[dict[str, Any]]:
            return [{"index": 0, "shape": np.array([1, 4, 4, 3]), "dtype": np.float32}]

    def time_invokes(_net: Any, _index: int, inputs: Any, seconds: float, least: int) -> Any:
        calls.append((len(inputs), seconds, least))
        return np.array([1000]), np.array([1000])

    monkeypatch.setitem(sys.modules, "stand_in", SimpleNamespace(Interpreter=Interpreter))
    monkeypatch.setattr(runner, "time_invokes", time_invokes)
    monkeypatch.setattr(runner, "pin", lambda threads: [])
    monkeypatch.setattr(runner.gc, "disable", lambda: None)
    spec = {"model": "m", "module": "stand_in", "threads": 1, "sample": None, "score": 0}
    runner.run_worker(
        {**spec, "seconds": 2.0, "warmup": 0.5, "least": 50, "seed": 0, "scaling": [0.0, 1.0]}
    )
    assert calls == [(1, 0, 1), (1, 0.5, 1), (runner.TIMED_IMAGES, 2.0, 50)]


@pytest.mark.parametrize(("row", "name"), [(0, "float.tflite"), (2, "int8.tflite")])
def test_accuracy_and_digest_are_those_of_the_model(
    row: int,
    name: str,
    folder: Path,
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(folder / name), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    with np.load(folder / "sample.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    predicted = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None].astype(source["dtype"]))
        interpreter.invoke()
        predicted.append(int(interpreter.get_tensor(target["index"])[0].argmax()))
    found = measured[0]["rows"][row]
    assert found["accuracy"] == pytest.approx(np.mean(np.array(predicted) == labels))
    assert found["images"] == IMAGES
    digest = hashlib.sha256(np.array(predicted, dtype="<i8").tobytes()).hexdigest()
    assert found["predictions_sha256"] == digest


def test_the_file_and_the_machine_are_recorded(
    folder: Path, measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]]
) -> None:
    from bloodedge.files import gzip_size, sha256_of

    row, environment = measured[0]["rows"][0], measured[0]["environment"]
    path = folder / "float.tflite"
    assert row["bytes"] == path.stat().st_size
    assert row["gzip_bytes"] == gzip_size(path)
    assert row["sha256"] == sha256_of(path)
    assert environment["runtime"] == "ai_edge_litert"
    for key in ("runtime_version", "python", "numpy", "platform", "machine", "cpu_model"):
        assert environment[key]
    for moment in ("before", "after"):
        assert set(environment[moment]) >= {"governor", "temperature_c", "throttled"}


def test_the_result_is_as_its_written_schema_says(
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    jsonschema.validate(measured[0], json.loads(RUNNER.with_name("result.schema.json").read_text()))


def test_the_machines_peaks_are_measured_through_the_runtime_and_numpy(
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    (peaks,) = measured[0]["peaks"]
    assert peaks["threads"] == 1
    for key in ("int8_gmacs", "float32_gmacs", "numpy_float32_gmacs"):
        # From a microcontroller's speed to a thousand times a server core's.
        assert 1e-3 < peaks[key] < 1e6
    sizes = [copy["resident_bytes"] for copy in peaks["copy"]]
    assert sizes == sorted(sizes) == [2 * size for size in runner.COPY_BYTES]
    assert all(copy["gb_s"] > 0 for copy in peaks["copy"])


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16, 64, 1000])
def test_a_copys_speed_is_filed_under_what_all_threads_touch(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = []

    def copy_speed(size: int, count: int, seconds: float) -> float:
        touched.append(2 * size * count)
        return 1.0

    monkeypatch.setattr(runner, "copy_speed", copy_speed)
    monkeypatch.setattr(runner, "pin", lambda count: [])
    monkeypatch.setattr(runner, "runtime_gemms", lambda *_: {})
    monkeypatch.setattr("math.Interpreter", None, raising=False)
    spec = {"threads": threads, "seconds": 0.0, "peaks": True, "module": "math"}
    copies = runner.run_probe(spec)["peaks"]["copy"]
    assert [copy["resident_bytes"] for copy in copies] == touched == sorted(set(touched))
    # As much as with one thread, but for short copies, which would measure Python's lock.
    least = 2 * threads * (64 << 10)
    wanted = sorted({max(2 * size, least) for size in runner.COPY_BYTES})
    assert touched == pytest.approx(wanted, abs=2 * threads)


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_the_packed_gemms_are_those_that_the_script_makes(kind: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from bloodedge.benchmarks.gemm_model import gemm_model, packed
    from bloodedge.benchmarks.model_work import model_work

    assert runner.GEMM[kind] == packed(kind)
    work = model_work(kind, gemm_model(kind))
    assert (work.macs, work.macs_int8 > 0) == (runner.GEMM_MACS, kind == "int8")
    interpreter = Interpreter(model_content=gemm_model(kind), num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    out = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert out.shape == (256, 512)
    assert not out.any()


def test_a_runtime_that_refuses_every_model_is_found_before_any_is_measured() -> None:
    def refuse(**_: object) -> None:
        raise SystemError("returned a result with an error set")

    with pytest.raises(runner.RunnerError, match=r"with numpy .* it runs no model: returned"):
        runner.runtime_gemms(refuse, 1, 0.0)


def test_progress_says_first_how_long_it_takes_and_names_each_step(
    measured: tuple[dict[str, Any], subprocess.CompletedProcess[str]],
) -> None:
    lines = measured[1].stderr.splitlines()
    assert lines[0].startswith("6 processes, about ")
    assert sum(line.startswith("[") for line in lines) == 6
    assert "\r" not in measured[1].stderr


def test_without_a_sample_there_is_no_accuracy(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    settings = ("--threads", 1, "--repeats", 1, "--quick", "--out", out)
    assert run_runner(folder / "int8.tflite", *settings).returncode == 0
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert (result["sample"], row["accuracy"], row["images"]) == (None, None, 0)
    assert row["drift"] is False


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_keeps_what_is_complete(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    models = [str(folder / name) for name in ("float.tflite", "int8.tflite")]
    settings = ["--threads", "1", "--quick", "--repeats", "100", "--out", str(out)]
    command = [sys.executable, str(RUNNER), *models, *settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[2/200]"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    result = json.loads(out.read_text())
    assert result["complete"] is False
    # The first round, whole: both models once.
    assert {row["model"] for row in result["rows"]} == {"float.tflite", "int8.tflite"}
    assert all(row["repeats"] >= 1 for row in result["rows"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.json.partial"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_a_closed_terminal_keeps_what_is_complete(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    settings = ["--threads", "1", "--quick", "--repeats", "100", "--out", str(out)]
    command = [sys.executable, str(RUNNER), str(folder / "int8.tflite"), *settings]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True,
        # Under nohup, which the runner respects, the signal would mean nothing.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert any(line.startswith("[2/100]") for line in process.stderr)
        process.stderr.close()
        for _ in range(2):  # the terminal says it, and its shell once more
            process.send_signal(signal.SIGHUP)
    assert process.returncode == 130
    result = json.loads(out.read_text())
    assert (result["complete"], len(result["rows"])) == (False, 1)
