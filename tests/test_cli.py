"""The command line as a user meets it: exit codes, one clear line, help that answers at once."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from bloodedge import cli
from bloodedge.cli.app import app

COMMANDS = (
    "",
    "data",
    "models",
    "zoo",
    "train",
    "distill",
    "prune",
    "cluster",
    "quantize",
    "sensitivity",
    "compress",
    "lint",
    "export",
    "verify",
    "inspect",
    "evaluate",
    "benchmark",
    "bundle",
    "report",
    "predict",
    "demo",
)


def bloodedge(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bloodedge", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def one_line_error(*arguments: str) -> str:
    done = bloodedge(*arguments)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("bloodedge: ")
    assert done.stdout == ""
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once(command: str):
    before = os.times()
    done = bloodedge(*command.split(), "--help")
    after = os.times()
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    # CPU seconds: the wall clock of a busy machine says nothing about the program.
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert spent < 1.5


def commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner)


def test_no_help_text_holds_what_rich_takes_for_markup():
    for command in commands(typer.main.get_command(app)):
        texts = [command.help, *(getattr(option, "help", "") for option in command.params)]
        for text in texts:
            assert not re.search(r"\[/?[A-Za-z]", text or ""), f"{command.name}: {text}"


def test_a_usage_error_exits_with_2():
    assert bloodedge("train").returncode == 2
    assert bloodedge("nonsense").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--model", "vgg17", "--data", "synthetic"), "did you mean 'vgg16'"),
        (("train", "--model", "cnn_se", "--data", "bloodmnst"), "bloodmnist"),
        (("train", "--model", "cnn_se", "--data", "nothing.npz"), "does not exist"),
        (("train", "--model", "cnn_se", "--epochs", "0"), "--epochs 0"),
        (("train", "--model", "cnn_se", "--name", "../x"), "run's name"),
        (("train", "--model", "cnn_se", "--backend", "caffe"), "unknown backend"),
        (("distill", "--teacher", "x", "--student", "cnn_see"), "did you mean 'cnn_se'"),
        (("quantize", "nothing"), "no run, file or zoo model"),
        (("quantize", "cnn_se", "--mode", "int4"), "--mode 'int4'"),
        (("quantize", "cnn_se", "--mode", "int8", "--epochs", "2"), "--epochs with --mode int8"),
        (("quantize", "cnn_se", "--mode", "qat", "--audit"), "modes after training"),
        (("quantize", "cnn_se", "--mode", "qat"), "train one: cnn_se-s0, from which it was made"),
        (("sensitivity", "nothing"), "no run, file or zoo model"),
        (("evaluate", "nothing"), "no run, file or zoo model"),
        (("export", "nothing", "--tflite"), "no run, file or zoo model"),
        (("verify", "nothing", "cnn_se"), "no run, file or zoo model"),
        (("verify", "cnn_se", "cnn_se"), "compared with itself"),
        (("bundle",), "no model to bundle"),
        (("bundle", "--check", "nothing.zip"), "cannot be read"),
        (("bundle", "--unpack", "x"), "--unpack without --check"),
        (("bundle", "cnn_se", "--check", "nothing.zip"), "one of the two"),
        (("inspect", "nothing"), "no run, file or zoo model"),
        (("export", "--tflite"), "or cluster or quantize run"),
        (("benchmark", "nothing", "--data", "synthetic:1"), "no run, file or zoo model"),
        (("benchmark", "nothing", "--threads", "x"), "--threads 'x'"),
        (("predict", "nothing", "image.png"), "no run, file or zoo model"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[str, ...], words: str):
    assert words in one_line_error(*arguments)


def test_names_that_the_terminal_cannot_show_are_printed_all_the_same(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("bloodedge.cli.app.app", lambda: print("caf\udce9"))
    cli.main()
    terminal.flush()
    assert terminal.buffer.getvalue() == b"caf\\udce9\n"  # type: ignore[attr-defined]


def test_ctrl_c_while_the_commands_are_still_loading_is_one_line(monkeypatch, capsys):
    class Loading(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "bloodedge.cli.app", Loading("app"))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bloodedge: interrupted; no finished result was changed")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_process_without_its_streams_works_all_the_same(closed: str, tmp_path: Path):
    """As a daemon may be started; its files must not get the streams' numbers either."""
    cv2.imwrite(str(tmp_path / "cell.png"), np.full((64, 64, 3), 200, np.uint8))
    command = f"{shlex.quote(sys.executable)} -m bloodedge predict cnn_se cell.png --csv out.csv"
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "out.csv").read_text().count("\n") == 2


@pytest.mark.slow
def test_ctrl_c_leaves_no_run_and_says_how_to_continue(isolated_runs: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (400, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(400)[:, None] % 4
    np.savez(tmp_path / "noise.npz", **arrays)
    command = ["train", "--model", "cnn_se", "--data", str(tmp_path / "noise.npz")]
    process = subprocess.Popen(
        [sys.executable, "-m", "bloodedge", *command, "--epochs", "10000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = isolated_runs / ".cnn_se.partial" / ".checkpoint.npz"
    deadline = time.monotonic() + 240
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (isolated_runs / "cnn_se").exists()
    assert checkpoint.exists()
