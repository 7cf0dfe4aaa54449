"""`benchmark --ssh` on emulated Raspberry Pis, with every TFLite runtime there is for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks import runner
from bloodedge.benchmarks.bundle import BundleConfig, bundle
from bloodedge.benchmarks.elsewhere import score
from bloodedge.benchmarks.emulator import tools
from bloodedge.benchmarks.emulator.server import Server
from bloodedge.benchmarks.emulator.userland import Userland, make_userland
from bloodedge.benchmarks.profile.litert import CHILD, profile_model, read_profile
from bloodedge.benchmarks.report.text import micros
from bloodedge.benchmarks.result import load_result
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset
from bloodedge.data.synthetic_set import load_synthetic, write_npz
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import ConfigError
from bloodedge.references import find_model
from bloodedge.runs import runs_root

MODEL = "cnn_se"
FAST = ["--repeats", "1", "--seconds", "0.02", "--threads", "1"]


@pytest.fixture(scope="module")
def cells() -> Dataset:
    """Two drawn cells of each class."""
    return load_synthetic(2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def check_answers(raw: dict[str, object], cells: Dataset) -> None:
    """The device classifies every image as this machine does."""
    test = cells["test"]
    here = Classifier(find_model(MODEL).path).predict(test.images).argmax(1)
    expected = score(here, test.labels)
    assert {key: raw[key] for key in expected} == expected


def use(python: Path, programs: Path) -> None:
    script = programs / "python3"
    script.write_text(f'#!/bin/sh\nexec {python}/python3 "$@"\n')
    script.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "runtime", "bare", "machine", "cpu"),
    [
        ("arm64", "ai-edge-litert", True, "aarch64", "cortex-a72"),
        # It has its runtime: on 32 bits pip looks into Python's own program for the ABI, and finds
        # the script that starts qemu.
        ("armhf", "tflite-runtime", False, "armv7l", "cortex-a15"),
    ],
)
def test_a_device_gets_what_it_lacks_and_answers_as_this_machine(
    architecture: str,
    runtime: str,
    bare: bool,
    machine: str,
    cpu: str,
    userland: Callable[[str], Userland],
    server: Server,
    home: Path,
    programs: Path,
    cells: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = userland(architecture)
    use(made.bare if bare else made.with_runtime(runtime), programs)
    # Its package index is a folder; nothing else of what pip does is changed.
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1"}
    server.device(home, programs, PIP_FIND_LINKS=str(made.wheels(runtime)), **pip)
    monkeypatch.setenv("PATH", f"{server.client()}:{os.environ['PATH']}")
    write_npz(tmp_path / "cells.npz", cells)
    target = ["--ssh", server.target.host, "--ssh-port", str(server.port)]
    target += ["--identity", str(server.root / "key"), "--data", str(tmp_path / "cells.npz")]
    done = CliRunner().invoke(app, ["benchmark", MODEL, *target, *FAST], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    result = load_result(runs_root() / "benchmark-ssh" / "benchmark.json")
    assert (result.complete, result.emulated, result.protocol) == (True, True, "runner")
    assert result.runtime.startswith(runtime.replace("-", "_"))
    assert (machine in result.hardware, cpu in result.hardware) == (True, True)
    (raw,) = json.loads(result.path.read_text())["rows"]
    check_answers(raw, cells)
    assert ("pip install" in done.output) == bare
    # Sizes and answers are shown, a latency is not.
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("cnn_se "))
    cells_shown = re.split(" {2,}", line.strip())
    assert (cells_shown[0], cells_shown[-1]) == ("cnn_se", "emulated")
    assert micros(raw["median_us"]) not in cells_shown
    assert [path.name for path in home.rglob("*")] == [".cache"]


@pytest.mark.slow
def test_a_device_with_the_older_runtime_runs_a_copied_bundle(
    userland: Callable[[str], Userland],
    server: Server,
    home: Path,
    programs: Path,
    cells: Dataset,
    tmp_path: Path,
) -> None:
    use(userland("arm64").with_runtime("tflite-runtime"), programs)
    server.device(home, programs)
    client, key = server.client(), ["-i", str(server.root / "key")]
    folder = bundle(BundleConfig((MODEL,), tmp_path / "device", images=0), cells)
    host, port = server.target.host, str(server.port)
    for command in (
        ["scp", "-q", "-r", "-P", port, *key, str(folder), f"{host}:"],
        ["ssh", "-p", port, *key, host, f"cd device && python3 run.py {' '.join(FAST)}"],
        ["scp", "-q", "-P", port, *key, f"{host}:device/result.json", str(tmp_path)],
    ):
        words = [str(client / command[0]), *command[1:]]
        subprocess.run(words, check=True, timeout=600, stdin=subprocess.DEVNULL)
    result = load_result(tmp_path / "result.json")
    assert (result.runtime, result.emulated) == ("tflite_runtime 2.14.0", True)
    (raw,) = json.loads(result.path.read_text())["rows"]
    check_answers(raw, cells)


@pytest.mark.slow
def test_a_finished_userland_is_used_again(userland: Callable[[str], Userland]) -> None:
    made = userland("arm64")
    before = made.folder.stat().st_mtime_ns
    assert make_userland("arm64") == made
    assert made.folder.stat().st_mtime_ns == before
    python = made.with_runtime("ai-edge-litert") / "python3"
    code = "import sys, numpy; print(sys.version_info[:2], sys.platform, numpy.__version__[0])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 11) linux 2\n"


@pytest.mark.slow
def test_the_profiler_tells_the_same_operators_there(userland: Callable[[str], Userland]) -> None:
    """Their times mean nothing; that it runs on this processor, and what it finds, does."""
    python = userland("arm64").with_runtime("ai-edge-litert") / "python3"
    model = find_model(MODEL).path
    command = [python, CHILD, model, "1", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    there = read_profile(MODEL, 1, "there", done.stdout.splitlines()[-1]).by_kind()
    here = profile_model(MODEL, model, 1, 0.05).by_kind()

    def counts(kinds: dict[str, tuple[int, float]]) -> dict[str, int]:
        # How a convolution is done differs between processors; its name begins alike.
        families = {kind: kind.partition(" ")[0] for kind in kinds}
        return {
            family: sum(kinds[kind][0] for kind in kinds if families[kind] == family)
            for family in sorted(set(families.values()))
        }

    assert counts(there) == counts(here)
    assert counts(there)["Convolution"] == 6


def test_an_emulated_board_can_say_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLOODEDGE_EMULATED", raising=False)
    assert runner.emulated() is False
    monkeypatch.setenv("BLOODEDGE_EMULATED", "1")
    assert runner.emulated() is True


def test_a_missing_tool_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"qemu-.* is not installed.*apt install qemu-user-static"
    ):
        make_userland("arm64", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    with pytest.raises(ConfigError, match="no architecture 'mips'"):
        make_userland("mips", tmp_path / "root")


def test_packages_that_cannot_be_had_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in (*tools.TOOLS, "apt-get"):
        script = "echo 'E: no route to the mirror' >&2; exit 25"
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with pytest.raises(ConfigError, match=r"unpacking Debian .* failed: E: no route"):
        make_userland("arm64", tmp_path / "root", "http://127.0.0.1:1/debian")
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".arm64.lock"]
    with pytest.raises(ConfigError, match=r"apt knows no address.*--mirror"):
        make_userland("arm64", tmp_path / "root")
