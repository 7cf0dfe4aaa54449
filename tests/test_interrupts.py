"""What tells a command to stop, wherever it arrives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bloodedge import interrupts
from bloodedge.interrupts import Stopped, orderly_stops

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals to other processes")

# A command in the place of all others.
_START = """
import gc, os, signal, sys, tempfile, time
from bloodedge import cli
# Under nohup it would inherit that a closed terminal is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
_RUN = """
module = type(sys)("bloodedge.cli.app")
module.app = command
sys.modules[module.__name__] = module
cli.main()
"""
_COLLECTING = """
def callback(phase, info):
    if phase == "start" and not came:
        came.append(1)
        os.kill(os.getpid(), {number})

came = []

def command():
    gc.callbacks.append(callback)
    gc.collect()
    print("goes on", flush=True)
    time.sleep(10)
    print("to its end", flush=True)
"""
_WORKING = """
def command():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print("works", flush=True)
        try:
            time.sleep(30)
        finally:
            time.sleep({slow})
"""
STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", _START + code + _RUN]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_during_a_garbage_collection_ends_the_command(name: str, tmp_path: Path):
    code = _COLLECTING.format(number=int(signal.Signals[name]))
    with start(code, tmp_path) as command:
        out, err = command.communicate(timeout=60)
    assert command.returncode == STOPS[name]
    assert out == "goes on\n"
    (line,) = err.splitlines()
    assert line.startswith("bloodedge: interrupted")


@pytest.mark.parametrize("name", STOPS)
def test_a_stop_leaves_no_temporary_folder_and_its_own_exit_code(name: str, tmp_path: Path):
    with start(_WORKING.format(slow=0), tmp_path) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "works\n"
        command.send_signal(signal.Signals[name])
        _, err = command.communicate(timeout=60)
    assert command.returncode == STOPS[name]
    # Nobody reads what is said to a closed terminal.
    assert [line[:22] for line in err.splitlines()] == ["bloodedge: interrupted"] * (
        name != "SIGHUP"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_impatient_second_stop_does_not_cut_the_cleaning_short(tmp_path: Path):
    with start(_WORKING.format(slow=0.5), tmp_path) as command:
        assert command.stdout is not None
        command.stdout.readline()
        for _ in range(3):
            command.send_signal(signal.SIGINT)
            time.sleep(0.1)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_after_a_second_another_stop_is_heard(monkeypatch: pytest.MonkeyPatch):
    # Some commands keep what is complete after the first, and go on to what comes next.
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with orderly_stops():
        for now[0] in (100.0, 101.5):
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
    assert interrupts.exit_code() == 130


def test_what_was_usual_is_so_again():
    usual = {number: signal.getsignal(number) for number in interrupts.STOPS}
    # Under nohup a closed terminal is ignored, which stays so.
    taken = [number for number, way in usual.items() if way != signal.SIG_IGN]
    assert signal.SIGTERM in taken
    with orderly_stops():
        assert all(signal.getsignal(number) != usual[number] for number in taken)
    assert {number: signal.getsignal(number) for number in interrupts.STOPS} == usual


def test_what_is_ignored_stays_so():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orderly_stops():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_hosts_that_train_together_end_at_once():
    code = (
        "import signal; from bloodedge.interrupts import *\nwith orderly_stops():\n"
        "  end_at_once(); signal.raise_signal(signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize("tied", ["", "1"])
def test_only_a_step_ends_with_its_stdin(
    tied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BLOODEDGE_TIED", tied)
    code = """
def command():
    print(os.environ.get("BLOODEDGE_TIED"), flush=True)
    time.sleep(1)
    print("to its end", flush=True)
"""
    with start(code, tmp_path) as command:
        assert command.stdout is not None
        # What it starts itself must not take it for its own.
        assert command.stdout.readline() == "None\n"
        out, _ = command.communicate("more", timeout=60)
    expected = (143, "") if tied else (0, "to its end\n")
    assert (command.returncode, out) == expected
