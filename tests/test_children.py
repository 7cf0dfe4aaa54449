"""Commands that run others as children: whatever ends them ends the child, and says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bloodedge import children
from bloodedge.children import ChildError, run_child
from bloodedge.interrupts import Stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals to other processes")

STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
# `bloodedge`, with another program in the place of Python where it starts children.
COMMAND = """
import signal, sys
# Under nohup it would inherit that a closed terminal is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.executable = sys.argv.pop(1)
from bloodedge.cli import app, main, pipelining
app.app.command("rest")(lambda: pipelining._finish_elsewhere([]))
main()
"""
FORMS = {"demo": ["demo", "--out", "d"], "pipeline --backend jax": ["rest"]}


def run_python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def start(form: str, script: str, folder: Path) -> subprocess.Popen[str]:
    """Return a command whose children are a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    command = [sys.executable, "-P", "-c", COMMAND, str(python), *FORMS[form]]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=folder)


def wait_for(file: Path) -> str:
    """Return what a child has written, which ends in a newline, once it is there."""
    while not (file.exists() and file.read_text().endswith("\n")):
        time.sleep(0.02)
    return file.read_text()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- the commands ----


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("form", FORMS)
def test_what_ends_a_command_ends_its_child(form: str, name: str, tmp_path: Path):
    with start(form, "echo $$ >pid; exec sleep 40", tmp_path) as command:
        child = int(wait_for(tmp_path / "pid"))
        command.send_signal(signal.Signals[name])
        _, err = command.communicate(timeout=30)
    assert command.returncode == STOPS[name]
    assert "Traceback" not in err
    assert not is_running(child)


@pytest.mark.parametrize("form", FORMS)
def test_the_end_of_a_command_that_is_killed_ends_its_step(form: str, tmp_path: Path):
    # As the step itself does, see `interrupts.end_with_parent`.
    script = 'echo "$BLOODEDGE_TIED" >pid; cat >/dev/null; echo over >end'
    with start(form, script, tmp_path) as command:
        assert wait_for(tmp_path / "pid") == "1\n"
        assert not (tmp_path / "end").exists()
        command.kill()
    assert wait_for(tmp_path / "end") == "over\n"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("demo", "step 1 of 8 was ended by SIGKILL; to mend it: free memory, which may have run "
         "out, and give the same command again, which starts anew"),
        ("pipeline --backend jax", "the part on tensorflow was ended by SIGKILL; to mend it: free "
         "memory, which may have run out, and give the same command again, which goes on"),
    ],
)  # fmt: skip
def test_a_child_that_is_killed_is_one_line(form: str, said: str, tmp_path: Path):
    with start(form, "kill -KILL $$", tmp_path) as command:
        _, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert err == f"bloodedge: {said}\n"


def test_a_child_that_failed_has_said_why(tmp_path: Path):
    with start("demo", "exit 3", tmp_path) as command:
        _, err = command.communicate(timeout=60)
    assert (command.returncode, err) == (3, "")


# ---- a child ----


def test_a_child_has_its_environment_and_gives_its_exit_code():
    code = run_python("import os; raise SystemExit(int(os.environ['CODE']))")
    environment = {**os.environ, "CODE": "7"}
    assert run_child(code, "it", fix="", environment=environment) == 7


def test_the_signal_that_ended_a_child_is_named():
    with pytest.raises(ChildError) as error:
        run_child(["sh", "-c", "ulimit -c 0; kill -SEGV $$"], "it", fix="look")
    assert str(error.value) == "it was ended by SIGSEGV; to mend it: look"
    # A real-time signal has no name.
    assert children._name_of(1000) == "signal 1000"


def test_a_tied_child_sees_an_end_only_when_we_end(tmp_path: Path):
    script = "echo $$ >pid; cat; echo over >end"
    code = f"run_child(['sh', '-c', {script!r}], 'it', fix='', tied=True)"
    code = f"from bloodedge.children import run_child; {code}"
    with subprocess.Popen([sys.executable, "-P", "-c", code], cwd=tmp_path) as parent:
        wait_for(tmp_path / "pid")
        time.sleep(0.2)
        assert not (tmp_path / "end").exists()
        parent.kill()
    assert wait_for(tmp_path / "end") == "over\n"


def raise_in_child(number: signal.Signals, code: str = "pass") -> list[str]:
    """Return a child that sends its parent a signal and sleeps; `code` is what it does before."""
    send = f"import os, signal, time; {code}; os.kill(os.getppid(), {int(number)}); time.sleep(600)"
    return run_python(send)


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(children, "_STOP_S", 0.3)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped:
        run_child(raise_in_child(signal.SIGTERM, deaf), "it", fix="")
    assert stopped.value.number == signal.SIGTERM
    assert time.monotonic() - began < 60
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_after_ctrl_c_a_child_is_not_disturbed_while_it_ends(tmp_path: Path):
    # As on a terminal: it has Ctrl-C of its own, and writes what it has.
    code = f"""
import os, signal, time
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.3)
    open({str(tmp_path / "written")!r}, "w").close()
"""
    with pytest.raises(Stopped):
        run_child(run_python(code), "it", fix="")
    assert (tmp_path / "written").exists()


def test_a_signal_while_a_child_starts_ends_it(monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(children.subprocess, "Popen", Slow)
    with pytest.raises(Stopped):
        run_child(["sleep", "600"], "it", fix="")
    assert started[0].returncode == -signal.SIGTERM


def test_what_is_ignored_stays_so():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import os, signal; os.kill(os.getppid(), signal.SIGHUP)"
        assert run_child(run_python(code), "it", fix="") == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)
