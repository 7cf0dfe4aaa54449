"""The part of `bloodedge benchmark --ssh` that runs on the device; standard library only.

    python3 agent.py runtime|measure|stop|fetch|remove [JSON]

It lies in the unpacked bundle and answers in lines of JSON on stdout: `{"say": line}` for people,
`{"error": what, "fix": how}`, or `{"done": ...}`. The measurement is a process of its own that a
broken connection does not end. Needs Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, NoReturn

FOLDER = Path(__file__).resolve().parent
BASE = FOLDER.parent
VENV = BASE / "venv"
STATE, LOG, EXIT = FOLDER / "state.json", FOLDER / "log", FOLDER / "exit"
RESULT = FOLDER / "result.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")
STOP_SECONDS = 60.0
POLL_SECONDS = 0.5
RESULT_LIMIT = 16 << 20
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


def tell(**message: Any) -> None:
    """Write one line of the conversation."""
    print(json.dumps(message), flush=True)


def fail(what: str, fix: str = "") -> NoReturn:
    """Say what went wrong, and end."""
    tell(error=what, fix=fix)
    sys.exit(0)


def alone(seconds: float) -> bool:
    """Wait, and return whether the one who asked has gone: then our stdin has ended."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1 << 10)


# ---- a runtime ----


def runtime(options: dict[str, Any]) -> None:
    """Find a Python that has a runtime, or make one in a venv."""
    reasons = []
    for python in (sys.executable, str(VENV / "bin/python")):
        if Path(python).exists():
            found, why = probe(python)
            if found:
                return tell(done={"python": python, "runtime": " ".join(found)})
            reasons.append(why)
    tell(say=f"no runtime in {sys.executable}: {reasons[0]}")
    python = install()
    found, why = probe(python)
    if not found:
        fail(f"the runtime that pip installed does not work: {why}")
    return tell(done={"python": python, "runtime": " ".join(found)})


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


def detached(
    command: list[str], log: IO[bytes], environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, which no lost terminal ends."""
    return subprocess.Popen(
        command,
        cwd=str(FOLDER),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


# ---- measuring ----


def measure(options: dict[str, Any]) -> None:
    """Start the measurement unless it was, and repeat its log from a byte on until it ends.

    One that ended without an exit code, as when the power fails, goes on where it was.
    """
    child = None
    state = json.loads(STATE.read_text()) if STATE.exists() else {"options": options}
    if not STATE.exists() or (ended() and exit_code() is None):
        command = [sys.executable, str(Path(__file__).resolve()), "supervise"]
        with LOG.open("ab") as out:
            child = detached([*command, json.dumps(state["options"])], out)
        STATE.write_text(json.dumps({**state, "pid": child.pid, "boot": boot()}))
    with LOG.open("rb") as log:
        log.seek(options["from"])
        while True:
            # This first, then the log: what was written in between is not missed.
            over = ended() or (child is not None and child.poll() is not None)
            for line in log:
                tell(say=line.decode("utf-8", "replace").rstrip("\n"), at=log.tell())
            if over:
                return tell(done={"code": exit_code()})
            if alone(POLL_SECONDS):
                return None


def supervise(options: dict[str, Any]) -> None:
    """Run the bundle in a session of its own, and write its exit code when it ends."""
    with (BASE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("error: another measurement is running on this device", flush=True)
            write_exit(2)
            return
        command = [options["python"], "run.py", *options["options"]]
        # The runner's own record of what it has finished.
        if RESULT.with_name("result.json.partial").exists():
            command.append("--resume")
        child = subprocess.Popen(command, cwd=str(FOLDER), stdin=subprocess.DEVNULL)
        # From `stop`, or when the device is shut down: the runner writes what it has.
        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
        write_exit(child.wait())


def write_exit(code: int) -> None:
    """Write the exit code whole or not at all."""
    temporary = EXIT.with_name(".exit")
    temporary.write_text(str(code))
    temporary.replace(EXIT)


def exit_code() -> int | None:
    """Return how the measurement ended; nothing when the device went down under it."""
    try:
        return int(EXIT.read_text())
    except (OSError, ValueError):
        return None


def boot() -> str:
    """Return what changes when the device starts anew."""
    try:
        return BOOT.read_text()
    except OSError:
        return ""


def ended() -> bool:
    """Return whether the measurement is over, in whatever way."""
    if EXIT.exists():
        return True
    state = json.loads(STATE.read_text())
    if state["boot"] != boot():
        return True
    try:
        os.kill(state["pid"], 0)
    except ProcessLookupError:
        # It may have ended just now.
        return True
    return False


def stop(options: dict[str, Any]) -> None:
    """End the measurement as Ctrl-C does, and wait until it has written what is complete."""
    until = time.monotonic() + STOP_SECONDS
    if STATE.exists() and not ended():
        os.kill(json.loads(STATE.read_text())["pid"], signal.SIGTERM)
        while not ended() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        if not ended():
            os.killpg(json.loads(STATE.read_text())["pid"], signal.SIGKILL)
    tell(done={"code": exit_code()})


def fetch(options: dict[str, Any]) -> None:
    """Give the result; nothing where the runner wrote none."""
    if not RESULT.exists():
        return tell(done={"result": None})
    if RESULT.stat().st_size > RESULT_LIMIT:
        fail("the result is larger than 16 MiB")
    text = RESULT.read_text(encoding="utf-8")
    if options.get("keep"):
        # The next measurement of the same bundle starts anew.
        STATE.unlink()
    return tell(done={"result": text})


def remove(options: dict[str, Any]) -> None:
    """Remove all that was brought or made here, unless another measurement uses it."""
    shutil.rmtree(str(FOLDER), ignore_errors=True)
    with (BASE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return tell(done={})
        shutil.rmtree(str(VENV), ignore_errors=True)
        (BASE / "lock").unlink()
    with contextlib.suppress(OSError):
        BASE.rmdir()
    return tell(done={})


def main(argv: list[str]) -> None:
    """Do what was asked for."""
    os.umask(0o077)
    commands = {f.__name__: f for f in (runtime, measure, supervise, stop, fetch, remove)}
    commands[argv[0]](json.loads(argv[1]) if argv[1:] else {})


if __name__ == "__main__":
    main(sys.argv[1:])
