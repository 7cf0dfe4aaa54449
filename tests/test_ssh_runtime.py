"""What `benchmark --ssh` finds on a device to run models with, what it installs, and Pythons."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bloodedge.benchmarks.bundle import CLASSIFY, START
from bloodedge.benchmarks.emulator.server import Server
from bloodedge.benchmarks.host import RUNNER
from bloodedge.benchmarks.profile.files import CSV_FILE
from bloodedge.benchmarks.profile.litert import CHILD
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.ssh import agent
from bloodedge.benchmarks.ssh.agent import measuring, runtime
from bloodedge.errors import ConfigError
from bloodedge.runs import Run

Measure = Callable[..., tuple[Run, BenchmarkResult]]
# All that runs on a device.
COPIED = [RUNNER, START, CLASSIFY, CHILD, *Path(agent.__file__).parent.glob("*.py")]
# The oldest Python and the newest that we promise, with the runtime that there is for it.
PYTHONS = {
    "3.8": ("tflite-runtime==2.14.0", "numpy<2"),
    "3.13": ("ai-edge-litert",),
}


@pytest.mark.parametrize("path", COPIED, ids=lambda path: path.name)
def test_what_is_copied_there_is_python_3_8_and_imports_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
    modules |= {str(n.module) for n in froms}
    found = {name.partition(".")[0] for name in modules}
    assert found - set(sys.stdlib_module_names) <= {"numpy", "PIL"}


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A measurement that was started, which is no more than a sleeping process here."""
    for name in ("STATE", "EXIT", "STOPPED", "RESULT", "PARTIAL"):
        monkeypatch.setattr(measuring, name, tmp_path / name.lower())
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        record(sleeper, measuring.began(sleeper.pid))
        yield sleeper
        sleeper.kill()


def record(sleeper: subprocess.Popen[bytes], began: str) -> None:
    state = {"options": {}, "pid": sleeper.pid, "began": began, "boot": measuring.boot()}
    measuring.STATE.write_text(json.dumps(state))


def test_a_later_process_of_the_same_number_is_not_the_measurement(
    started: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measuring.began(started.pid).isdecimal()
    assert not measuring.ended()
    record(started, "1")
    assert measuring.ended()
    measuring.stop({})
    assert started.poll() is None
    assert json.loads(capsys.readouterr().out) == {"done": {"code": None}}
    # Records of an older agent do not say when theirs began.
    record(started, "")
    assert not measuring.ended()


def test_a_measurement_that_is_over_has_no_beginning(started: subprocess.Popen[bytes]) -> None:
    started.kill()
    started.wait()
    assert measuring.began(started.pid) == ""
    assert measuring.ended()


def test_a_process_of_another_user_is_not_the_measurement(
    started: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(measuring.os, "kill", forbidden)
        assert measuring.ended()


def virtual(installed: Path, version: str, folder: Path) -> Path:
    """Return the Python of a new venv with the runtime for that version."""
    made = [str(installed), "-m", "venv", str(folder)]
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (made, [*pip, "--only-binary=:all:", *PYTHONS[version]]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"no venv for Python {version}: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_oldest_and_the_newest_python_measure(
    version: str,
    installed_python: Callable[[str], Path],
    measure: Measure,
    use_python: Callable[[Path], None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """All of it: agent, bundle, runner, its workers, and the profiler where there is one."""
    use_python(virtual(installed_python(version), version, tmp_path / "venv"))
    run, result = measure(profile=True, repeats=2)
    assert result.complete
    assert result.environment["python"].startswith(f"{version}.")
    name = re.split("[<=]", PYTHONS[version][0])[0]
    assert result.runtime.startswith(name.replace("-", "_"))
    (row,) = json.loads((run.path / "benchmark.json").read_text())["rows"]
    assert (row["accuracy"], row["images"], row["repeats"]) == (1.0, 6, 2)
    assert row["median_us"] > 0
    told = "tflite_runtime does not tell" in capfd.readouterr().err
    assert (run.path / CSV_FILE).exists() != told


@pytest.mark.parametrize(
    ("bits", "machine", "said"),
    [
        (32, "i686", "no TFLite runtime is published for i686"),
        (32, "armv7l", "sudo apt install python3-numpy"),
        # A 64-bit kernel under a 32-bit system, as many a Pi has.
        (32, "aarch64", "sudo apt install python3-numpy"),
        (64, "riscv64", ""),
    ],
)
def test_what_is_installed_depends_on_the_system(
    bits: int,
    machine: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runtime.struct, "calcsize", lambda _: bits // 8)
    monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
    # NumPy here is 2, which tflite-runtime does not work with.
    if not said:
        assert runtime.packages() == [["ai-edge-litert"], ["tflite-runtime", "numpy<2"]]
        return
    with pytest.raises(SystemExit):
        runtime.packages()
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("ensurepip is not\navailable", "sudo apt install python3-venv"),
        ("Error: [Errno 28] No space left on device: 'x'", "No space left on device"),
    ],
)
def test_a_venv_that_cannot_be_made_is_one_line(
    output: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "call", lambda _: (1, output))
    with pytest.raises(SystemExit):
        runtime.install()
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_without_runtime_and_network_the_way_out_is_said(
    pi: Server,
    measure: Measure,
    home: Path,
    programs: Path,
    tmp_path: Path,
    use_python: Callable[[Path], None],
) -> None:
    command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")]
    subprocess.run(command, check=True, timeout=300)
    use_python(tmp_path / "bare/bin/python3")
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    pi.device(home, programs, **nowhere)
    with pytest.raises(ConfigError, match=r"reaches no package index.*ai-edge-litert"):
        measure()
    assert [path.name for path in home.rglob("*")] == [".cache"]
