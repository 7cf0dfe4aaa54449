"""The Android driver against a stand-in `adb`: a program that behaves as the real one does.

The stand-in keeps its device in a folder, runs shell commands with the machine's own shell, and
answers for `benchmark_model` with the output of several versions.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks.android.adb import Adb, Answer, LostDeviceError
from bloodedge.benchmarks.android.device import cores
from bloodedge.benchmarks.android.driver import FOLDER, Android, AndroidConfig, architecture
from bloodedge.benchmarks.elsewhere import DriverConfig, benchmark_elsewhere
from bloodedge.benchmarks.profile import files
from bloodedge.benchmarks.profile.files import read_profiles
from bloodedge.benchmarks.result import BenchmarkResult, load_result
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.errors import ConfigError, DataError
from bloodedge.runs import Run, runs_root

OUTPUTS = Path(__file__).with_name("benchmark_model")
NEW, OLD, SAME = ((OUTPUTS / f"{age}.txt").read_text() for age in ("new", "old", "same"))
ADB = """#!{python} -IS
import json, os, re, subprocess, sys, shutil
from pathlib import Path
root = Path({root!r})
device = root / "device"
state = json.loads((root / "state.json").read_text())
words = sys.argv[1:]

def die(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)

if words == ["devices"]:
    if state.get("daemon"):
        print("* daemon not running; starting now at tcp:5037\\n* daemon started successfully")
    print("List of devices attached")
    for serial, said in state["devices"].items():
        print(f"{{serial}}\\t{{said}}")
    print()
    sys.exit(0)
assert words[0] == "-s", words
serial, words = words[1], words[2:]
calls = root / "calls"
made = calls.read_text().splitlines() if calls.exists() else []
gone = len([c for c in made if "--num_runs=50" in c]) >= state.get("unplug_after", 10**9)
if "unplug_at" in state and any(state["unplug_at"] in c for c in [*made, " ".join(words)]):
    calls.write_text("".join(f"{{c}}\\n" for c in [*made, " ".join(words)]))
    gone = True
if state["devices"].get(serial) != "device" or gone:
    die(f"error: device '{{serial}}' not found")
if words == ["get-state"]:
    print("device")
    sys.exit(0)
calls.write_text("".join(f"{{c}}\\n" for c in [*made, " ".join(words)]))

def here(path):
    assert path.startswith("/data/local/tmp/"), path
    return device / path[1:]

if words[0] == "push":
    source, target = Path(words[1]), here(words[2])
    full = state.get("full")
    if full is True or (full and source.is_dir()):
        die("adb: error: failed to copy: remote couldn't create file: No space left on device")
    if source.is_dir():
        shutil.copytree(source, target / source.name if target.exists() else target)
    else:
        shutil.copyfile(source, target)
    print(f"{{words[1]}}: 1 file pushed.")
elif words[0] == "pull":
    shutil.copytree(here(words[1]), Path(words[2]))
elif words[0] == "shell":
    command = words[1].replace("/data/local/tmp/bloodedge/benchmark_model", f"{{root}}/bin/bench")
    command = command.replace("/data/local/tmp", f"{{device}}/data/local/tmp")
    command = command.replace("/sys/devices", f"{{device}}/sys/devices")
    (device / "data/local/tmp").mkdir(parents=True, exist_ok=True)
    if command.startswith("chmod"):
        command = "true"
    path = f"{{root}}/bin:/bin:/usr/bin"
    done = subprocess.run(["sh", "-c", command], env={{**os.environ, "PATH": path}})
    sys.exit(done.returncode)
"""
# Answers as its state says; with an output file it classifies as the brightest channel.
BENCH = """#!{python} -IS
import json, os, re, sys
from pathlib import Path
root = Path({root!r})
state = json.loads((root / "state.json").read_text())
flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
delegate = "gpu" if "use_gpu" in flags else "nnapi" if "use_nnapi" in flags else "cpu"
delegate = "profile" if "enable_op_profiling" in flags else delegate
answer = state["answers"].get(delegate) or state["answers"]["any"]
if "output_filepath" in flags:
    if state.get("no_outputs"):
        print("Unconsumed cmdline flags: --output_filepath")
        sys.exit(0)
    from array import array
    from math import exp
    name, path = re.split(r"(?<!:):(?!:)", flags["input_layer_value_files"])
    assert name.replace("::", ":") == flags["input_layer"]
    image = array("f", Path(path).read_bytes())
    means = [sum(image[c::3]) / len(image) * 3 / 32 for c in range(3)]
    powers = [exp(mean - max(means)) for mean in means]
    scores = [power / sum(powers) for power in powers]
    if state.get("wrong_image") == Path(flags["output_filepath"]).name:
        scores.reverse()
    out = array("f", scores).tobytes()
    Path(flags["output_filepath"]).write_bytes(out[: state.get("cut", len(out))])
sys.stdout.write(answer.get("out", ""))
sys.stderr.write(answer.get("err", ""))
sys.exit(answer.get("code", 0))
"""
PROPERTIES = """\
[ro.build.version.release]: [14]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.soc.model]: [Tensor\x1b]
"""
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 85
  temperature: 312
"""
ELF = b"\x7fELF\x02\x01\x01" + bytes(11)


class Device:
    """The stand-in: what it is, and what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        self.program("adb", ADB.format(python=sys.executable, root=str(root)))
        self.program("bench", BENCH.format(python=sys.executable, root=str(root)))
        (root / "properties").write_text(PROPERTIES)
        (root / "battery").write_text(BATTERY)
        self.program("getprop", f"#!/bin/sh\ncat '{root}/properties'\n")
        self.program("dumpsys", f"#!/bin/sh\n[ $1 = battery ] && cat '{root}/battery'\n")
        self.program("taskset", '#!/bin/sh\nshift\nexec "$@"\n')
        for core, khz in enumerate((1800000, 1800000, 2800000, 2400000)):
            folder = root / f"device/sys/devices/system/cpu/cpu{core}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
            (folder / "scaling_governor").write_text("schedutil\n")
        self.state: dict[str, Any] = {}
        self.set(devices={"P6": "device"}, answers={"any": {"out": NEW}})
        self.binary = root / "android_aarch64_benchmark_model"
        self.binary.write_bytes(ELF + (183).to_bytes(2, "little"))

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def set(self, **state: Any) -> None:
        self.state |= state
        (self.root / "state.json").write_text(json.dumps(self.state))

    def calls(self, word: str) -> list[str]:
        return [c for c in (self.root / "calls").read_text().splitlines() if word in c]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    (tmp_path / "stand-in").mkdir()
    made = Device(tmp_path / "stand-in")
    monkeypatch.setenv("PATH", f"{made.root / 'bin'}:/usr/bin:/bin")
    return made


Measure = Callable[..., tuple[Run, BenchmarkResult]]


@pytest.fixture
def measure(
    device: Device,
    brightest_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Measure:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    path = tmp_path / "brightest; reboot.tflite"
    path.write_bytes(brightest_tflite)

    def run(repeats: int = 1, **settings: Any) -> tuple[Run, BenchmarkResult]:
        config = DriverConfig((str(path),), "phone", images=3, repeats=repeats, seconds=0.5)
        usual = {"threads": (1,), "delegates": ("xnnpack",)}
        driver = Android(AndroidConfig(device.binary, **(usual | settings)))
        return benchmark_elsewhere(config, colours, driver)

    return run


def raw_rows(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run.path / "benchmark.json").read_text())["rows"]
    return rows


# ---- measuring ----


@pytest.mark.slow
def test_every_thread_count_and_delegate_is_a_row(device: Device, measure: Measure) -> None:
    run, result = measure(repeats=2, threads=(1, 0), delegates=("xnnpack", "cpu"))
    assert load_result(run.path / "benchmark.json") == result
    assert (result.complete, result.protocol, result.emulated) == (True, "android", False)
    assert {(r.delegate, r.threads) for r in result.rows} == {
        (d, n) for d in ("xnnpack", "cpu") for n in (1, 4)
    }
    row = result.rows[0]
    assert (row.median_us, row.min_us, row.load_ms, row.first_ms) == (201.0, 195.0, 12.3, 0.4)
    assert (row.peak_rss_kib, row.p90_us, row.p99_us, row.drift) == (3584, None, None, False)
    assert raw_rows(run)[0]["repeats"] == 2
    assert result.hardware == "Google Pixel 6, Tensor? (arm64-v8a)"
    before = result.environment["before"]
    assert (before["battery_level"], before["battery_temperature"]) == (85.0, 31.2)
    assert (before["powered"], before["governor"]) == ("USB powered", ["schedutil"])
    assert result.environment["after"]["battery_level"] == 85.0


@pytest.mark.slow
def test_it_is_pinned_to_the_fastest_cores_and_told_what_to_use(
    device: Device, measure: Measure
) -> None:
    measure(threads=(1, 2, 0), delegates=("xnnpack", "cpu", "gpu", "nnapi"))
    timed = device.calls("--num_runs=50")
    assert len(timed) == 12
    # Core 2 is the fastest, then 3.
    masks = {call.split("--num_threads=")[1][0]: call.split()[2] for call in timed}
    assert masks == {"1": "4", "2": "c", "4": "f"}
    assert all("--min_secs=0.5" in call for call in timed)
    nnapi = "--use_nnapi=true --disable_nnapi_cpu=true --use_xnnpack=false"
    gpu = "--use_gpu=true --use_xnnpack=false"
    for flags in ("--use_xnnpack=true", gpu, nnapi):
        assert sum(flags in call for call in timed) == 3
    # Without XNNPACK only where nothing else is asked for.
    plain = [c for c in timed if "--use_xnnpack=false" in c and "gpu" not in c and "nnapi" not in c]
    assert len(plain) == 3
    # What is typed into the device's shell holds nothing of a file's name.
    assert not device.calls("reboot.tflite --graph")
    assert all("/0.tflite" in call for call in timed)
    assert not (device.root / "device/data/local/tmp/bloodedge").exists()


def test_a_profile_is_one_more_run_with_the_tools_own_profiler(
    device: Device, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = (OUTPUTS / "profile.txt").read_text()
    device.set(answers={"any": {"out": NEW}, "profile": {"out": profile}})
    run, result = measure(profile=True)
    (found,) = read_profiles(run.path / "profile.csv")
    assert found.runtime == "benchmark_model unknown, xnnpack"
    assert found.by_kind()["Convolution (NHWC, QC8) IGEMM"] == (2, pytest.approx(140.0))
    assert (found.threads, found.invoke_us) == (1, 201.0)
    assert [p.suffix for p in run.path.glob("profile-*")] == [".png"]
    (call,) = device.calls("--enable_op_profiling=true")
    assert "--use_xnnpack=true" in call
    assert (result.complete, result.rows[0].median_us) == (True, 201.0)
    assert "profiles" not in json.loads((run.path / "benchmark.json").read_text())


def test_a_build_without_a_profiler_is_a_line_and_the_rest_is_kept(
    device: Device, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    run, result = measure(profile=True)
    assert not list(run.path.glob("profile*"))
    assert result.rows[0].median_us == 201.0
    assert "no profile by operator: it printed no table" in capsys.readouterr().err


def test_a_device_that_refuses_pinning_is_measured_and_says_so(
    device: Device, measure: Measure
) -> None:
    device.program("taskset", "#!/bin/sh\necho 'taskset: Operation not permitted' >&2\nexit 1\n")
    _, result = measure()
    assert result.environment["pinned"] is False
    assert result.rows[0].median_us == 201.0
    assert not any("taskset" in call for call in device.calls("--num_runs=50"))


def test_the_answers_are_compared_with_this_machines(
    device: Device, measure: Measure, colours: Dataset
) -> None:
    run, result = measure()
    (row,) = raw_rows(run)
    assert (result.rows[0].accuracy, result.rows[0].images) == (1.0, 3)
    assert (row["parity"]["argmax_equal"], row["parity"]["images"]) == (3, 3)
    assert row["parity"]["max_difference"] < 1e-5
    # The images that were sent are those of the data set.
    sent = device.calls("push")[2].split()[1]
    assert Path(sent).name == "images-float32-1"
    assert sum("--input_layer_value_files" in c for c in device.calls("for i in 0 1 2")) == 1


def test_an_answer_that_differs_is_counted_and_said(
    device: Device, measure: Measure, capfd: pytest.CaptureFixture[str]
) -> None:
    # Its scores are reversed: red and blue change places, green stays.
    device.set(wrong_image="0")
    run, result = measure()
    (row,) = raw_rows(run)
    changed = 3 - row["parity"]["argmax_equal"]
    assert result.rows[0].accuracy == pytest.approx(1 - changed / 3)
    assert row["parity"]["max_difference"] > 0.01 or changed == 0
    assert ("images get another class than here" in capfd.readouterr().err) == (changed > 0)


@pytest.mark.parametrize("state", [{"no_outputs": True}, {"cut": 5}])
def test_a_build_without_output_files_is_timed_all_the_same(
    device: Device, measure: Measure, state: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    device.set(**state)
    _, result = measure()
    assert (result.rows[0].median_us, result.rows[0].accuracy) == (201.0, None)
    assert "not compared with this machine" in capfd.readouterr().err


@pytest.mark.parametrize(("out", "median"), [(OLD, None), (SAME, 7.0)])
def test_builds_of_other_ages_are_understood(
    out: str, median: float | None, device: Device, measure: Measure
) -> None:
    device.set(answers={"any": {"out": out}})
    run, result = measure()
    assert result.rows[0].median_us == median
    assert raw_rows(run)[0]["mean_us"] == (10412.3 if median is None else 7.0)
    assert result.rows[0].error is None


def test_a_delegate_that_fails_is_a_row_with_its_reason(device: Device, measure: Measure) -> None:
    failed = {"err": "ERROR: Failed to apply GPU delegate.\n", "code": 1}
    device.set(answers={"any": {"out": NEW}, "gpu": failed})
    _, result = measure(repeats=3, delegates=("xnnpack", "gpu"))
    by_delegate = {row.delegate: row for row in result.rows}
    assert by_delegate["gpu"].error == "Failed to apply GPU delegate."
    assert by_delegate["xnnpack"].error is None
    assert result.complete is True
    assert sum("--use_gpu" in call for call in device.calls("--num_runs=50")) == 1


def test_an_emulators_result_is_marked(device: Device, measure: Measure) -> None:
    (device.root / "properties").write_text(PROPERTIES + "[ro.kernel.qemu]: [1]\n")
    assert measure()[1].emulated is True


def test_a_cable_pulled_half_way_leaves_what_was_done(
    device: Device, measure: Measure, capfd: pytest.CaptureFixture[str]
) -> None:
    device.set(unplug_after=2)
    _, result = measure(delegates=("xnnpack", "cpu", "nnapi"))
    assert result.complete is False
    assert len(result.rows) == 1
    assert result.rows[0].median_us == 201.0
    assert "the device P6 is gone: error: device 'P6' not found" in capfd.readouterr().err


def test_a_cable_pulled_at_once_leaves_nothing(device: Device, measure: Measure) -> None:
    device.set(unplug_after=1)
    with pytest.raises(DataError, match="nothing was measured"):
        measure()
    assert not (runs_root() / "phone").exists()


LEFT = "device/data/local/tmp/bloodedge"


def interrupted_at(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C while adb does what ends with a word."""
    run = Adb._run

    def interrupt(self: Adb, words: list[str], timeout: float) -> Answer:
        if words[-1].endswith(word):
            raise KeyboardInterrupt
        return run(self, words, timeout)

    monkeypatch.setattr(Adb, "_run", interrupt)


def test_a_cable_pulled_while_profiling_costs_only_the_profile(
    device: Device, measure: Measure, capfd: pytest.CaptureFixture[str]
) -> None:
    device.set(unplug_at="--enable_op_profiling")
    run, result = measure(profile=True)
    assert (result.complete, result.rows[0].median_us) == (True, 201.0)
    assert result.environment["after"]["battery_level"] == 85.0
    assert not list(run.path.glob("profile*"))
    assert "is gone" in capfd.readouterr().err


# Making the folder removes it too, but does not end with that.
@pytest.mark.parametrize("word", ["--enable_op_profiling=true", f"rm -rf {FOLDER}"])
def test_ctrl_c_after_the_measurement_costs_nothing_of_it(
    word: str, device: Device, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(word, monkeypatch)
    _, result = measure(profile=True)
    assert (result.complete, result.rows[0].median_us) == (True, 201.0)


@pytest.mark.parametrize("word", ["0.tflite", "--version 2>&1", "footprint=true"])
def test_ctrl_c_leaves_nothing_on_the_device(
    word: str, device: Device, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(word, monkeypatch)
    with pytest.raises((KeyboardInterrupt, DataError)):
        measure()
    assert (device.root / LEFT).parent.exists()
    assert not (device.root / LEFT).exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_profiles_that_cannot_be_kept_cost_nothing_that_was_measured(
    error: BaseException,
    device: Device,
    measure: Measure,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(files, "save_profiles", fail)
    run, result = measure(profile=True)
    assert load_result(run.path / "benchmark.json") == result
    assert result.complete
    (line,) = [s for s in capfd.readouterr().err.splitlines() if "are not all kept" in s]
    assert "No space left" in line or isinstance(error, KeyboardInterrupt)


def test_numbers_of_a_hostile_device_are_no_clocks() -> None:
    class Hostile:
        def shell(self, command: str) -> Answer:
            path = "/sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq:{}"
            lines = [path.format(*pair) for pair in ((0, "9" * 5000), ("1" * 5000, 5), (2, 7))]
            return Answer(0, "\n".join(lines), "")

    assert cores(cast("Adb", Hostile())) == [2]


def test_a_full_device_is_one_clear_error(device: Device, measure: Measure) -> None:
    device.set(full=True)
    with pytest.raises(DataError, match=r"No space left on device.*free some space"):
        measure()


def test_a_device_without_room_for_the_images_is_timed_all_the_same(
    device: Device, measure: Measure, capfd: pytest.CaptureFixture[str]
) -> None:
    device.set(full="for folders")
    (row,) = measure()[1].rows
    assert (row.median_us, row.accuracy) == (201.0, None)
    assert "No space left on device" in capfd.readouterr().err


# ---- which device, which program ----


@pytest.mark.parametrize(
    ("devices", "serial", "said"),
    [
        ({}, "", "no Android device is connected.*USB debugging"),
        ({}, "X", "no device 'X'.*none"),
        ({"A": "device", "B": "device"}, "", "2 devices are connected.*--serial: A, B"),
        ({"A": "unauthorized"}, "", "A is unauthorized.*allow USB debugging"),
        ({"A": "offline"}, "A", "A is offline.*plug it in again"),
        ({"A": "no permissions (user in plugdev group); see [x]"}, "", "no permissions"),
    ],
)
def test_the_device_is_chosen_or_the_reason_said(
    devices: dict[str, str], serial: str, said: str, device: Device
) -> None:
    device.set(devices=devices, daemon=True)
    with pytest.raises(ConfigError, match=said):
        Adb(serial)


def test_a_serial_chooses_among_several(device: Device) -> None:
    device.set(devices={"A": "offline", "B": "device"}, daemon=True)
    assert Adb("B").serial == "B"


def test_a_failing_command_is_told_from_a_lost_device(device: Device) -> None:
    adb = Adb()
    answer = adb.shell("echo out; echo err >&2; exit 3")
    assert (answer.code, answer.out, answer.err) == (3, "out\n", "err\n")
    device.set(devices={})
    with pytest.raises(LostDeviceError, match="P6 is gone"):
        adb.shell("true")


def test_a_command_that_hangs_is_given_up_but_the_device_is_not(device: Device) -> None:
    answer = Adb().shell("sleep 60", timeout=1)
    assert (answer.code, answer.err) == (124, "no answer within 1 s")


def test_without_adb_the_way_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="adb is not installed"):
        Adb()


@pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed")
def test_the_real_adb_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # A server of its own, so that a phone on somebody's desk is not found.
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "50371")
    monkeypatch.setenv("ADB_LIBUSB", "0")
    try:
        with pytest.raises(ConfigError, match=r"no Android device|no permissions"):
            Adb()
        with pytest.raises(ConfigError, match="no device 'emulator-1'"):
            Adb("emulator-1")
    finally:
        program = shutil.which("adb")
        assert program
        # On a busy machine the server may not answer in time, which is not what is tested.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([program, "kill-server"], check=False, timeout=30)


@pytest.mark.parametrize(
    ("machine", "abi"), [(183, "arm64-v8a"), (40, "armeabi-v7a"), (62, "x86_64"), (3, "x86")]
)
def test_a_programs_architecture_is_read_from_its_header(
    machine: int, abi: str, tmp_path: Path
) -> None:
    path = tmp_path / "binary"
    path.write_bytes(ELF + machine.to_bytes(2, "little"))
    assert architecture(path) == abi


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", ELF + b"\xff\xff"])
def test_what_is_no_program_for_android_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no program for Android"):
        AndroidConfig(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        AndroidConfig(tmp_path / "absent")


@pytest.mark.parametrize(
    ("machine", "own", "abi"),
    [(62, "x86_64", "arm64-v8a"), (62, "x86_64", "x86"), (183, "arm64-v8a", "x86_64")],
)
def test_a_program_for_another_architecture_is_refused(
    machine: int, own: str, abi: str, device: Device, measure: Measure
) -> None:
    (device.root / "properties").write_text(PROPERTIES.replace("arm64-v8a", abi))
    device.binary.write_bytes(ELF + machine.to_bytes(2, "little"))
    with pytest.raises(ConfigError, match=f"is for {own}, the device is {abi}"):
        measure()


@pytest.mark.parametrize(("machine", "abi"), [(40, "arm64-v8a"), (3, "x86_64")])
def test_a_program_of_32_bits_runs_on_a_device_of_64(
    machine: int, abi: str, device: Device, measure: Measure
) -> None:
    (device.root / "properties").write_text(PROPERTIES.replace("arm64-v8a", abi))
    device.binary.write_bytes(ELF + machine.to_bytes(2, "little"))
    assert measure()[1].complete is True


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"delegates": ("tpu",)}, "no delegate 'tpu'"),
        ({"delegates": ()}, "--delegate none; expected one or more"),
        ({"delegates": ("cpu", "cpu")}, "--delegate cpu, cpu; expected one or more, each once"),
        ({"threads": ()}, "--threads none"),
        ({"threads": (1, 1)}, "--threads 1,1: 1 is there twice"),
        ({"threads": (-1,)}, "--threads -1"),
        ({"threads": (65,)}, "to 64"),
    ],
)
def test_bad_settings_are_refused_when_built(
    bad: dict[str, Any], said: str, device: Device
) -> None:
    with pytest.raises(ConfigError, match=said):
        AndroidConfig(device.binary, **bad)


# ---- the command ----


def test_the_command_measures(
    device: Device,
    brightest_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda name, size: colours)
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    words = ["benchmark", str(path), "--adb", "--serial", "P6", "--quick", "--images", "3"]
    words += ["--threads", "1", "--delegate", "xnnpack"]
    assert isinstance(CliRunner().invoke(app, words).exception, ConfigError)
    words += ["--benchmark-model", str(device.binary)]
    assert isinstance(CliRunner().invoke(app, [*words, "--browser"]).exception, ConfigError)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    result = load_result(runs_root() / "benchmark-android" / "benchmark.json")
    assert [row.delegate for row in result.rows] == ["xnnpack"]
    assert np.isclose(result.rows[0].accuracy or 0, 1.0)
    # The cable is pulled after the first repeat: exit code, reason, and what was measured.
    (device.root / "calls").unlink()
    device.set(unplug_after=2)
    done = CliRunner().invoke(app, [*words, "--delegate", "cpu", "--name", "cut"])
    assert done.exit_code == 1
    (said,) = [line for line in done.output.splitlines() if "is gone" in line]
    assert "keeping what is complete" in said
    kept = load_result(runs_root() / "cut" / "benchmark.json")
    assert (kept.complete, len(kept.rows)) == (False, 1)
