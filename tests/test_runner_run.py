"""Whole runs of the runner, on a device that stands in for its processes: it has its own clock."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bloodedge.benchmarks import runner

SCHEMA = Path(runner.__file__).with_name("result.schema.json")

PEAKS = {
    "int8_gmacs": 8.0,
    "float32_gmacs": 4.0,
    "numpy_float32_gmacs": 3.5,
    "copy": [{"resident_bytes": 2 * size, "gb_s": 4.0} for size in runner.COPY_BYTES],
}


@dataclass
class Device:
    """How fast it is, and what it has run.

    Attributes:
        folder: where models and results are.
        invoke_s: seconds for one inference, by model.
        start_s: seconds until a process has loaded Python, the runtime and the model.
        spread: how far the medians of processes lie apart, relative.
        jitter: of the steady loop.
        pinned: whether processes can be bound to CPUs.
        stop_before: Ctrl-C is pressed before this job.
        refuse: what the runtime says instead of working.
        now: its clock, in seconds.
        jobs: model, threads and place of each job in turn.
        specs: what each was told.
    """

    folder: Path
    invoke_s: dict[str, float]
    start_s: float = 1.0
    spread: float = 0.01
    jitter: float = 0.01
    pinned: bool = True
    stop_before: int | None = None
    refuse: str = ""
    now: float = 0.0
    jobs: list[tuple[str, int, int]] = field(default_factory=list)
    specs: list[dict[str, Any]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of processes and clock, and write its models."""
        monkeypatch.setattr(runner, "run_job", self.run_job)
        monkeypatch.setattr(runner.time, "monotonic", lambda: self.now)
        for name in self.invoke_s:
            (self.folder / name).write_bytes(name.encode())

    def run(self, *options: object) -> int:
        """Run the runner's command line over all models, and return its exit code."""
        models = [str(self.folder / name) for name in self.invoke_s]
        stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {s: signal.getsignal(s) for s in stops}
        try:
            command = [*models, "--out", str(self.out), *map(str, options)]
            return runner.main(command)
        except SystemExit as stop:
            return int(str(stop.code))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @property
    def out(self) -> Path:
        """Where the result is."""
        return self.folder / "r.json"

    def result(self) -> dict[str, Any]:
        """Return the result."""
        value: dict[str, Any] = json.loads(self.out.read_text())
        return value

    def run_job(self, spec: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Answer as a process would, in the device's own time."""
        cpus = [0] if self.pinned else []
        if "peaks" in spec:
            self.now += self.start_s + 6 * spec["seconds"]
            if self.refuse:
                return {"error": self.refuse}
            loop = {"median_us": 100.0, "jitter": self.jitter}
            peaks = {"peaks": {"threads": spec["threads"], **PEAKS}} if spec["peaks"] else {}
            return {"cpus": cpus, "loop": loop, **peaks}
        name = Path(spec["model"]).name
        earlier = sum(job[:2] == (name, spec["threads"]) for job in self.jobs)
        if self.stop_before == len(self.jobs):
            raise KeyboardInterrupt
        self.jobs.append((name, spec["threads"], earlier))
        self.specs.append(spec)
        return self._measure(spec, name, cpus)

    def _measure(self, spec: dict[str, Any], name: str, cpus: list[int]) -> dict[str, Any]:
        each = self.invoke_s[name]
        count = max(spec["least"], int(spec["seconds"] / each))
        images = spec["score"]
        if spec["score_seconds"] and images:
            images = max(1, min(images, int(spec["score_seconds"] / each)))
        warm = max(spec["warmup"], each)
        self.now += self.start_s + each + warm + (count + images) * each
        # Which process it is decides its median, as on a real device, and nothing else does.
        place = len([s for s in self.specs if s["model"] == spec["model"]])
        rng = np.random.default_rng([spec["threads"], place, *name.encode()])
        factor = 1 + self.spread * (place % 3 - 1)
        ns = (1e9 * each * factor * rng.normal(1, 0.001, min(count, 200))).astype(np.int64)
        scored = {"images": images, "accuracy": 0.5, "predictions_sha256": "0" * 64}
        return {
            "cpus": cpus,
            "load_ms": 3.0,
            "first_ms": 1000 * each,
            **runner.summarize(ns),
            "with_input_median_us": 1.1e6 * each,
            "timed_s": [1000.0, 1001.0],
            "rss_before_kib": 40_000,
            "max_rss_kib": 50_000,
            "ru_maxrss_kib": 50_000,
            "peak_rss_kib": 10_000,
            "process_peak_kib": 52_000,
            **(scored if images else {}),
            "note": "",
            "invoke_ns": runner.pack(ns),
            "xnnpack": True,
        }


def write_sample(path: Path, images: int) -> Path:
    """Write a sample of black images of one pixel."""
    shape = (images, 1, 1, 3)
    np.savez(path, images=np.zeros(shape, dtype=np.uint8), labels=np.zeros(images, dtype=int))
    return path


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Two models on one thread, both fast."""
    made = Device(tmp_path, {"a.tflite": 0.001, "b.tflite": 0.002})
    made.install(monkeypatch)
    return made


def check_schema(value: object) -> None:
    jsonschema.validate(value, json.loads(SCHEMA.read_text()))


# ---- going on ----


def figures(result: dict[str, Any]) -> Any:
    """What must not depend on interruptions."""
    return result["complete"], result["rows"], result["peaks"], result["config"]


@pytest.mark.parametrize("stop_before", [0, 1, 5])
def test_an_interrupted_run_goes_on_to_the_same_result(
    stop_before: int,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--threads", "1", "--repeats", "3")
    assert device.run(*options, "--force") == 0
    whole, jobs = device.result(), device.jobs.copy()
    device.out.unlink()
    device.jobs.clear()
    device.specs.clear()

    device.stop_before = stop_before
    assert device.run(*options) == 130
    assert "; --resume goes on from there" in capsys.readouterr().err
    partial = device.result()
    check_schema(partial)
    assert partial["complete"] is False
    assert sum(row["repeats"] for row in partial["rows"]) == stop_before
    device.stop_before = None
    assert device.run(*options, "--resume") == 0
    assert device.jobs == jobs
    assert figures(device.result()) == figures(whole)
    notes = [f"resumed after {stop_before} processes"] if stop_before else []
    assert device.result()["notes"] == notes
    assert sorted(path.name for path in device.folder.iterdir()) == [
        "a.tflite",
        "b.tflite",
        "r.json",
    ]


def test_after_a_power_cut_only_the_process_that_was_being_written_runs_again(
    device: Device,
) -> None:
    options = ("--threads", "1", "--repeats", "2")
    device.stop_before = 3
    device.run(*options)
    # No result was written, and the last line of the journal is cut short.
    device.out.unlink()
    journal = runner.journal_path(device.out)
    journal.write_text(journal.read_text()[:-30])
    device.stop_before = None
    repeated = device.jobs[2]
    assert device.run(*options, "--resume") == 0
    assert len(device.jobs) == 5
    assert device.jobs[3][:2] == repeated[:2]
    assert all(row["repeats"] == 2 for row in device.result()["rows"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--resume", "--seconds", "1"), "of another run (seconds differ): --force starts anew"),
        (("--resume", "--threads", "1", "--repeats", "2"), "(repeats differ)"),
        ((), "is of an interrupted run: --resume goes on, --force starts anew"),
    ],
)
def test_an_interrupted_run_is_neither_mixed_with_another_nor_overwritten(
    options: tuple[str, ...], said: str, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.stop_before = 2
    device.run("--threads", "1")
    journal = runner.journal_path(device.out).read_text()
    assert device.run(*(options or ("--threads", "1")), "--threads", "1") == 2
    assert said in capsys.readouterr().err
    assert runner.journal_path(device.out).read_text() == journal


def test_a_model_that_changed_is_no_going_on(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.stop_before = 2
    device.run("--threads", "1")
    (device.folder / "b.tflite").write_bytes(b"another")
    assert device.run("--threads", "1", "--resume") == 2
    assert "(models differ)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"schema": "bloodedge-journal/2"}'])
def test_a_journal_of_something_else_is_refused(
    content: str, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.journal_path(device.out).write_text(content)
    assert device.run("--resume") == 2
    assert "is no journal of this runner" in capsys.readouterr().err


def test_force_starts_anew_and_resume_without_anything_just_starts(device: Device) -> None:
    device.stop_before = 1
    device.run("--threads", "1", "--repeats", "2")
    device.stop_before = None
    assert device.run("--threads", "1", "--repeats", "1", "--force") == 0
    assert [row["repeats"] for row in device.result()["rows"]] == [1, 1]
    device.out.unlink()
    assert device.run("--threads", "1", "--repeats", "1", "--resume") == 0


def test_a_complete_result_is_not_done_again(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.run("--threads", "1", "--repeats", "1")
    assert device.run("--threads", "1", "--repeats", "1", "--resume") == 2
    assert "it is complete" in capsys.readouterr().err
    assert len(device.jobs) == 2


WORKING = """
import sys, time
from bloodedge.benchmarks import runner

seconds, *words = sys.argv[1:]

def work(spec, timeout):
    if "peaks" in spec:
        return {"cpus": [0], "loop": {"median_us": 100.0, "jitter": 0.01}}
    print("working", flush=True)
    time.sleep(float(seconds))
    return {"error": "done"}

runner.run_job = work
sys.exit(runner.main(words))
"""


def working(folder: Path, seconds: float, *options: str, stdin: int) -> subprocess.Popen[bytes]:
    """Return a runner whose only job, which has begun, takes some seconds and fails."""
    model = folder / "m.tflite"
    model.write_bytes(b"m")
    command = [sys.executable, "-c", WORKING, str(seconds), str(model), "--threads=1"]
    command += ["--repeats=1", f"--out={folder / 'r.json'}", *options]
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, cwd=folder)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    return process


def test_a_worker_that_is_starting_when_a_stop_comes_is_ended(monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []
    kinds = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    usual = {kind: signal.getsignal(kind) for kind in kinds}

    class Starting(subprocess.Popen):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(["sleep", "40"], **options)
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Starting)
    runner.on_stop(runner.interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run_job({"threads": 1}, 60)
    finally:
        for kind, way in usual.items():
            signal.signal(kind, way)
    (child,) = started
    assert child.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="there it ends after the job")
def test_a_tied_runner_stops_amid_a_job_when_its_stdin_ends(tmp_path: Path) -> None:
    with working(tmp_path, 40, "--tied", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 130
    assert json.loads((tmp_path / "r.json").read_text())["complete"] is False


def test_a_runner_that_a_person_starts_needs_no_stdin(tmp_path: Path) -> None:
    with working(tmp_path, 0.2, stdin=subprocess.DEVNULL) as process:
        assert process.wait(60) == 1
    assert json.loads((tmp_path / "r.json").read_text())["complete"] is True


# ---- how long ----

STUDENTS = {f"s{i}-{kind}.tflite": 0.002 for i in range(3) for kind in ("f32", "f16", "dr", "i8")}
ON_A_PI_4 = {
    # Seconds for an inference, generously: a Pi 4 is ten times slower than what we measure on.
    "a student and its teacher": {
        **dict(list(STUDENTS.items())[:4]),
        "vgg.tflite": 0.6,
        "v8.tflite": 0.4,
    },
    "three students": STUDENTS,
}


@pytest.mark.parametrize("name", ON_A_PI_4)
def test_a_quick_run_takes_under_a_minute_on_a_raspberry_pi_4(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pi = Device(tmp_path, ON_A_PI_4[name], start_s=1.8)
    pi.install(monkeypatch)
    sample = write_sample(tmp_path / "s.npz", 400)
    assert pi.run("--quick", "--sample", sample) == 0
    assert pi.now < 60
    result = pi.result()
    check_schema(result)
    assert {row["model"] for row in result["rows"]} == set(ON_A_PI_4[name])
    for row in result["rows"]:
        assert row["threads"] == 1
        assert 1 <= row["images"] <= 100


def test_a_quick_run_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Device(tmp_path, {f"m{i}.tflite": 0.5 for i in range(12)})
    slow.install(monkeypatch)
    slow.run("--quick")
    result = slow.result()
    done = sum(row["repeats"] for row in result["rows"])
    assert 12 <= done < 24
    said = f"{24 - done} processes were left out: the time of a quick run was over"
    assert said in result["notes"]
    assert said in capsys.readouterr().err


def test_the_full_protocol_says_how_long_it_takes_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    four = Device(tmp_path, {f"m{i}.tflite": 0.001 for i in range(8)})
    four.install(monkeypatch)
    four.run("--threads", "1")
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"40 processes, about {four.now / 60:.0f} min, and more where models are slow"
    assert all(spec["least"] == runner.MIN_INVOKES for spec in four.specs)


# ---- what the machine is like ----


def test_a_quiet_machine_is_told_from_a_noisy_one(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.run("--threads", "1", "--repeats", "3")
    noise = device.result()["noise"]
    assert (noise["verdict"], noise["reasons"]) == ("quiet", [])
    assert noise["typical_spread"] == pytest.approx(0.02, abs=0.001)
    assert (
        "quiet enough: processes differ by 2.0 %, a steady loop by 1.0 %" in capsys.readouterr().err
    )
    device.spread, device.jitter = 0.06, 0.2
    device.specs.clear()
    device.run("--threads", "1", "--repeats", "3", "--force")
    noise = device.result()["noise"]
    assert noise["verdict"] == "noisy"
    assert noise["reasons"] == [
        "a loop that does the same every time varies by 20 %",
        "the processes of most models differ by 12 % or more",
        "2 of 2 medians differ by over 10 % between processes",
    ]
    assert "this machine is too noisy to conclude: a loop that" in capsys.readouterr().err
    assert all(row["drift"] for row in device.result()["rows"])


def test_two_processes_cannot_tell(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.run("--threads", "1", "--repeats", "2")
    assert device.result()["noise"]["verdict"] == "unknown"
    assert "3 repeats or more would" in capsys.readouterr().err


def test_one_model_with_too_few_processes_leaves_the_verdict_open() -> None:
    rows = [{"error": None, "repeats": repeats, "spread": 0.0} for repeats in (5, 2)]
    assert runner.judge(rows, [LOOP, LOOP], [{}, {}])["verdict"] == "unknown"


LOOP = {"median_us": 100.0, "jitter": 0.0}


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        ({}, {}, []),
        ({"throttled": "0x0"}, {"throttled": "0x0"}, []),
        # It happened, but before the run.
        ({"throttled": "0x50000"}, {"throttled": "0x50000"}, []),
        (
            {"throttled": "0x0"},
            {"throttled": "0x50000"},
            ["the board reports under-voltage, throttling"],
        ),
        (
            {"throttled": "0x0"},
            {"throttled": "0x8"},
            ["the board reports the soft temperature limit"],
        ),
        ({"throttled": "0x2"}, {"throttled": "0x0"}, ["the board reports a capped clock"]),
        ({"throttled": "nonsense"}, {"throttled": "0x1"}, []),
        ({"throttle_count": 3}, {"throttle_count": 5}, ["the processor throttled 2 times"]),
        ({"throttle_count": None}, {"throttle_count": None}, []),
    ],
)
def test_throttling_during_the_run_makes_it_noisy(
    before: dict[str, Any], after: dict[str, Any], reasons: list[str]
) -> None:
    row = {"error": None, "repeats": 3, "spread": 0.0}
    noise = runner.judge([row], [LOOP, LOOP], [before, after])
    assert noise["reasons"] == reasons
    assert noise["verdict"] == ("noisy" if reasons else "quiet")


def test_what_a_board_says_between_processes_counts_where_it_said_so_before_the_run() -> None:
    states = [{"throttled": bits} for bits in ("0x50000", "0x50005", None, "0x50000")]
    noise = runner.judge([], [LOOP, LOOP], states)
    assert noise["reasons"] == ["the board reports under-voltage, throttling"]


def test_a_board_is_asked_after_every_process(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before, after each of three processes of two models, and after the run.
    said = iter(["0x50000"] * 4 + ["0x50005"] + ["0x50000"] * 3)
    monkeypatch.setattr(runner, "throttling", lambda: next(said))
    device.run("--threads", "1", "--repeats", "3")
    reasons = ["the board reports under-voltage, throttling"]
    assert device.result()["noise"]["reasons"] == reasons
    assert next(said, None) is None


def test_a_complete_run_gives_its_result_again_where_its_journal_is_kept(device: Device) -> None:
    device.run("--threads", "1", "--repeats", "2", "--keep-journal")
    first = device.result()
    device.run("--threads", "1", "--repeats", "2", "--resume")
    again = device.result()
    assert again["notes"] == ["resumed after 4 processes", *first["notes"]]
    assert again["rows"] == first["rows"]
    assert not runner.journal_path(device.out).exists()


def test_a_slow_model_is_waited_for() -> None:
    spec = {"least": 50, "score": 400, "seconds": 2.0, "warmup": 0.5}
    assert runner.patience(spec) > 8 * (50 + 400)
    assert runner.patience({**spec, "score": 0}) < 1200


def test_a_clock_that_fell_during_the_run_makes_it_noisy() -> None:
    noise = runner.judge([], [LOOP, {"median_us": 112.0, "jitter": 0.0}], [{}, {}])
    assert noise["reasons"] == ["the same loop takes +12 % after the run"]


def test_a_clock_that_rose_during_the_run_makes_it_noisy() -> None:
    noise = runner.judge([], [LOOP, {"median_us": 90.0, "jitter": 0.0}], [{}, {}])
    assert noise["reasons"] == ["the same loop takes -10 % after the run"]


def test_one_model_that_drifts_does_not_make_the_machine_noisy() -> None:
    steady = {"error": None, "repeats": 3, "spread": 0.01}
    # One in four does not; more would.
    rows = [steady] * 3 + [{**steady, "spread": 0.3}, {"error": "no model"}]
    assert runner.judge(rows, [LOOP], [{}, {}])["verdict"] == "quiet"


def test_models_that_drift_are_more_than_one_in_four_before_half_of_them_do() -> None:
    steady = {"error": None, "repeats": 3, "spread": 0.01}
    rows = [steady] * 3 + [{**steady, "spread": 0.3}] * 2
    noise = runner.judge(rows, [LOOP], [{}, {}])
    assert (noise["verdict"], noise["reasons"]) == (
        "noisy",
        ["2 of 5 medians differ by over 10 % between processes"],
    )


def test_models_of_one_process_do_not_hide_that_the_others_differ() -> None:
    once = {"error": None, "repeats": 1, "spread": 0.0}
    rows = [once] * 3 + [{"error": None, "repeats": 3, "spread": 0.08}] * 2
    noise = runner.judge(rows, [LOOP, LOOP], [{}, {}])
    assert noise["reasons"] == ["the processes of most models differ by 8 % or more"]


def test_a_steady_loop_is_measured_in_microseconds() -> None:
    loop = runner.steady_loop(0.01)
    assert loop["median_us"] > 1


def test_jitter_is_what_lies_between_the_outer_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    now, takes = [0], iter(range(1000, 21_000, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(runner.time, "perf_counter_ns", lambda: now[0])
        found = runner.vary(lambda: now.__setitem__(0, now[0] + next(takes)), 0.0)
    # 1 to 20 us: the tenth percentile is 2.9, the ninetieth 18.1.
    assert found == {"median_us": 10.5, "jitter": round(15.2 / 10.5, 4)}


def test_without_permission_to_pin_it_goes_on_and_says_so(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_pid: int, _cpus: list[int]) -> None:
        raise PermissionError("not allowed")

    monkeypatch.setattr(runner.os, "sched_setaffinity", refuse, raising=False)
    assert runner.pin(1) == []
    device.pinned = False
    assert device.run("--threads", "1", "--repeats", "1") == 0
    result = device.result()
    assert result["environment"]["pinned"] is False
    assert result["notes"] == ["processes were not bound to CPUs: the system does not allow it"]
    assert "cannot be bound to CPUs here" in capsys.readouterr().err


def test_a_runtime_that_works_with_no_model_is_one_line_and_leaves_nothing(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.refuse = "ImportError: libstdc++.so.6: cannot open shared object file"
    assert device.run() == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == f"error: ai_edge_litert cannot be used: {device.refuse}"
    assert sorted(path.name for path in device.folder.iterdir()) == ["a.tflite", "b.tflite"]


# ---- what a bundle knows of its models ----


def test_a_row_carries_what_the_bundle_knows_of_its_model(device: Device) -> None:
    work = {"macs_int8": 5, "macs_float": 0, "traffic_bytes": 7, "resident_bytes": 6}
    sha = runner.describe_model(device.folder / "a.tflite")["sha256"]
    models = {"a": {"sha256": sha, "work": work}, "b": {"sha256": "0" * 64, "work": work}}
    facts = device.folder / "bundle.json"
    facts.write_text(json.dumps({"models": models}))
    device.run("--threads", "1", "--repeats", "1", "--facts", facts)
    rows = device.result()["rows"]
    check_schema(device.result())
    assert rows[0]["work"] == work
    assert "work" not in rows[1]


@pytest.mark.parametrize("text", ["", "[]", '{"models": 3}', '{"models": {"a": 3}}'])
def test_a_damaged_bundle_json_is_one_line(
    text: str, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = device.folder / "bundle.json"
    facts.write_text(text)
    assert device.run("--facts", facts) == 2
    assert "bundle.json cannot be read" in capsys.readouterr().err


# ---- the schema ----


def test_the_schema_is_one_and_refuses_what_is_not_ours(device: Device) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    device.run("--threads", "1", "--repeats", "1")
    whole = device.result()
    check_schema(whole)
    wrong = (
        {"schema": "bloodedge-benchmark/2"},
        {"complete": "yes"},
        {"rows": [{**whole["rows"][0], "median_us": None}]},
        {"noise": {"verdict": "fine", "reasons": []}},
        {"environment": {}},
    )
    for change in wrong:
        with pytest.raises(jsonschema.ValidationError):
            check_schema({**whole, **change})
    for key in ("schema", "complete", "environment", "rows"):
        with pytest.raises(jsonschema.ValidationError):
            check_schema({name: value for name, value in whole.items() if name != key})


def test_a_last_look_that_fails_costs_nothing_that_was_measured(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = device.run_job

    def run_job(spec: dict[str, Any], timeout: float) -> dict[str, Any]:
        over = "peaks" in spec and not spec["peaks"]
        return {"error": "no memory"} if over else ordinary(spec, timeout)

    monkeypatch.setattr(runner, "run_job", run_job)
    assert device.run("--threads", "1", "--repeats", "3") == 0
    result = device.result()
    assert result["complete"] is True
    assert result["noise"]["verdict"] == "quiet"
    assert all(row["repeats"] == 3 for row in result["rows"])
