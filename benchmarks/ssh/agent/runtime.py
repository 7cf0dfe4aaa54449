"""A Python that has a TFLite runtime: the one that is there, or a venv."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from .talk import BASE, FOLDER, VENV, alone, detached, fail, tell

POLL_SECONDS = 0.5
# Imports what the runner would import, in a process that may die of it.
PROBE = """
import importlib, json, runner
try:
    name, version, module = runner.find_runtime()
    importlib.import_module(module).Interpreter
    print(json.dumps([name, version]))
except (runner.RunnerError, ImportError, AttributeError) as error:
    print(json.dumps(str(error)))
"""
PIP = ["install", "--only-binary=:all:", "--no-input", "--no-cache-dir", "--progress-bar=off"]
PIP += ["--disable-pip-version-check", "--retries=1", "--timeout=15"]


def runtime(options: dict[str, Any]) -> None:
    """Find a Python that has a runtime, or make one in a venv."""
    python, found, why = present()
    if found:
        return tell(done={"python": python, "runtime": " ".join(found)})
    tell(say=f"no runtime in {sys.executable}: {why}")
    python = install()
    found, why = probe(python)
    if not found:
        fail(f"the runtime that pip installed does not work: {why}")
    return tell(done={"python": python, "runtime": " ".join(found)})


def present() -> tuple[str, list[str], str]:
    """Return a Python here that has a runtime, and which; or nothing and what our own lacks."""
    reasons = []
    for python in (sys.executable, str(VENV / "bin/python")):
        if Path(python).exists():
            found, why = probe(python)
            if found:
                return python, found, ""
            reasons.append(why)
    return "", [], reasons[0]


def probe(python: str) -> tuple[list[str], str]:
    """Return the runtime's name and version in a Python, or nothing and the reason."""
    command = [python, "-c", PROBE]
    done = subprocess.run(
        command, cwd=str(FOLDER), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    with contextlib.suppress(ValueError, IndexError):
        answer = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
        return (answer, "") if isinstance(answer, list) else ([], str(answer))
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return [], last[0] if last else f"it died with exit code {done.returncode}"


def packages() -> list[list[str]]:
    """Return what to ask pip for, one attempt after the other."""
    if struct.calcsize("P") == 8:
        # The second is for Python versions that the first has no wheel for any more.
        return [["ai-edge-litert"], ["tflite-runtime", "numpy<2"]]
    if not platform.machine().startswith(("arm", "aarch64")):
        fail(f"no TFLite runtime is published for {platform.machine()} with 32 bits")
    # There is none of NumPy either, but the distribution has one.
    code = "import numpy; raise SystemExit(int(numpy.__version__.split('.')[0]) >= 2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    if done.returncode:
        fix = "sudo apt install python3-numpy (Debian 12 or older)"
        fail("tflite-runtime needs the distribution's NumPy 1 on 32 bits", fix)
    return [["--no-deps", "tflite-runtime"]]


def install() -> str:
    """Make a venv with a runtime and return its Python."""
    attempts = packages()
    tell(say="making a venv on the device")
    shutil.rmtree(str(VENV), ignore_errors=True)
    system = ["--system-site-packages"] if "--no-deps" in attempts[0] else []
    code, said = call([sys.executable, "-m", "venv", *system, str(VENV)])
    if code:
        fix = "sudo apt install python3-venv" if "venv" in said or "ensurepip" in said else ""
        fail(f"python3 makes no venv: {last_line(said)}", fix)
    python = str(VENV / "bin/python")
    for wanted in attempts:
        tell(say=f"pip install {' '.join(wanted)}")
        code, said = call([python, "-m", "pip", *PIP, *wanted])
        if not code:
            return python
    fix = f"connect the device, or install there yourself: {attempts[0][-1]}"
    if "connection broken" in said or "Failed to establish" in said or "Network" in said:
        fail("no runtime is installed, and pip reaches no package index", fix)
    fail(f"pip installs no runtime: {last_line(said)}", fix)


def last_line(text: str) -> str:
    """Return the last line that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "Error"))]
    return (errors or lines or ["no message"])[-1]


def call(command: list[str]) -> tuple[int, str]:
    """Run a program, which ends with the connection; return its exit code and output."""
    log = BASE / "install.log"
    # Packages are unpacked where there is room: /tmp may be in memory.
    environment = {**os.environ, "TMPDIR": str(BASE)}
    with log.open("wb") as out:
        child = detached(command, out, environment)
        while child.poll() is None:
            if alone(POLL_SECONDS):
                os.killpg(child.pid, signal.SIGKILL)
                sys.exit(1)
    text = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    return child.returncode, text
