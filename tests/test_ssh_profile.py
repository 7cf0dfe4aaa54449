"""`benchmark --ssh --profile`: where the time goes on the device, and what it never costs."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bloodedge.benchmarks.emulator.server import Server
from bloodedge.benchmarks.profile.files import CSV_FILE, figure_name, read_profiles
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.ssh import device as device_module
from bloodedge.benchmarks.ssh.device import Device
from bloodedge.runs import Run

Measure = Callable[..., tuple[Run, BenchmarkResult]]
BASE = ".cache/bloodedge-ssh"


def profiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in the place of the program that asks the runtime."""
    path = folder / "litert_child.py"
    path.write_text(script)
    monkeypatch.setattr(device_module, "CHILD", path)


def left_in(home: Path) -> list[str]:
    return [path.relative_to(home).as_posix() for path in home.rglob("*")]


def test_the_devices_runtime_tells_where_the_time_goes(measure: Measure, home: Path) -> None:
    run, result = measure(profile=True)
    assert result.complete
    (found,) = read_profiles(run.path / CSV_FILE)
    assert (found.model, found.threads) == (result.rows[0].model, 1)
    assert found.runtime == result.runtime
    # The means of the channels, and the softmax over them.
    assert any("mean" in kind.lower() for kind in found.by_kind())
    assert any("softmax" in kind.lower() for kind in found.by_kind())
    assert found.invoke_us is not None
    assert (run.path / figure_name(found, 1)).read_bytes()[:4] == b"\x89PNG"
    assert left_in(home) == [".cache"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("""print('{"refused": "no profiler here"}'); raise SystemExit(1)""", "no profiler here"),
        ("import os; os.abort()", "LiteRT gave no profile"),
    ],
)
def test_no_profile_is_one_line_and_costs_nothing_that_was_measured(
    script: str,
    said: str,
    measure: Measure,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    profiler(tmp_path, script, monkeypatch)
    run, result = measure(profile=True)
    assert (result.complete, result.rows[0].accuracy) == (True, 1.0)
    assert not (run.path / CSV_FILE).exists()
    (line,) = [s for s in capfd.readouterr().err.splitlines() if "no profile by operator" in s]
    assert said in line
    assert left_in(home) == [".cache"]


def test_a_connection_that_is_lost_while_profiling_costs_only_the_profile(
    pi: Server,
    measure: Measure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # As good as a lost network: ssh ends with the code that it gives then.
    profiler(tmp_path, "import os, signal; os.killpg(0, signal.SIGKILL)", monkeypatch)
    ask = Device.ask

    def lose(self: Device, command: str, **options: object) -> object:
        answer = ask(self, command, **options)
        if command == "fetch":
            pi.stop(cut=True)
        return answer

    monkeypatch.setattr(Device, "ask", lose)
    run, result = measure(profile=True)
    assert (result.complete, len(result.rows)) == (True, 1)
    assert not (run.path / CSV_FILE).exists()
    assert "no more profiles: " in capfd.readouterr().err


def test_another_measurement_is_not_disturbed(
    measure: Measure, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ask = Device.ask
    held = []

    def hold(self: Device, command: str, **options: object) -> object:
        answer = ask(self, command, **options)
        if command == "fetch":
            held.append((home / BASE / "lock").open("w"))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return answer

    monkeypatch.setattr(Device, "ask", hold)
    assert measure(profile=True)[1].complete
    held[0].close()
    assert "no more profiles: " in (said := capfd.readouterr().err)
    assert "another measurement is running" in said


def test_ctrl_c_while_profiling_keeps_what_was_measured(
    measure: Measure,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    profiler(tmp_path, "import time; time.sleep(600)", monkeypatch)
    ask = Device.ask

    def interrupt(self: Device, command: str, **options: object) -> object:
        answer = ask(self, command, **options)
        if command == "runtime" and list((home / BASE).glob("*/result.json")):
            signal.setitimer(signal.ITIMER_REAL, 1.0)
        return answer

    monkeypatch.setattr(Device, "ask", interrupt)
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        _, result = measure(profile=True)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (result.complete, result.rows[0].accuracy) == (True, 1.0)
    assert "interrupted: keeping what is complete" in capfd.readouterr().err


def test_an_emulators_times_are_not_profiled(
    pi: Server, measure: Measure, home: Path, programs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pi.device(home, programs, BLOODEDGE_EMULATED="1")
    run, result = measure(profile=True)
    assert result.emulated
    assert not (run.path / CSV_FILE).exists()
    assert "the times of an emulator mean nothing" in capfd.readouterr().err
