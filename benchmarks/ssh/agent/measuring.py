"""The measurement: a process of its own that a broken connection does not end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .talk import BASE, FOLDER, LOCK, VENV, alone, detached, fail, locked, tell

STATE, LOG, EXIT = FOLDER / "state.json", FOLDER / "log", FOLDER / "exit"
RESULT = FOLDER / "result.json"
# The runner's own record of what it has finished.
PARTIAL = RESULT.with_name("result.json.partial")
BOOT = Path("/proc/sys/kernel/random/boot_id")
STOP_SECONDS = 60.0
POLL_SECONDS = 0.5
RESULT_LIMIT = 16 << 20
BUSY = "another measurement is running on this device"


def measure(options: dict[str, Any]) -> None:
    """Start the measurement unless it was, and repeat its log from a byte on until it ends.

    One that ended without an exit code, as when the power fails, goes on where it was; so does one
    that ended without a result, once its exit code was told.
    """
    child = None
    state = json.loads(STATE.read_text()) if STATE.exists() else {"options": options}
    # Who has read some of the log, and was cut off, still has to hear how it ended.
    heard = options["from"] > 0
    if not STATE.exists() or (ended() and not RESULT.exists() and not (heard and EXIT.exists())):
        with contextlib.suppress(FileNotFoundError):
            EXIT.unlink()
        command = [sys.executable, "-m", "agent", "supervise"]
        with LOG.open("ab" if heard else "wb") as out:
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
    with locked() as lock:
        if not lock:
            print(f"error: {BUSY}", flush=True)
            write_exit(2)
            return
        command = [options["python"], "run.py", *options["options"]]
        if PARTIAL.exists():
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
    """Give the result; where the runner wrote none, whether it can go on."""
    if not RESULT.exists():
        return tell(done={"result": None, "partial": PARTIAL.exists()})
    if RESULT.stat().st_size > RESULT_LIMIT:
        fail("the result is larger than 16 MiB")
    text = RESULT.read_text(encoding="utf-8")
    if options.get("keep"):
        # The next measurement of the same bundle starts anew.
        STATE.unlink()
    return tell(done={"result": text})


def profile(options: dict[str, Any]) -> None:
    """Run one model with the runtime's profiler, whose answer is a line of its own.

    Options are `python`, and the words that `litert_child.py` takes. It ends with the connection.
    """
    with locked() as lock:
        if not lock:
            fail(BUSY)
        command = [options["python"], "litert_child.py", *options["words"]]
        none = subprocess.DEVNULL
        child = subprocess.Popen(command, cwd=str(FOLDER), stdin=none, stderr=none)
        while child.poll() is None:
            if alone(POLL_SECONDS):
                child.kill()
                child.wait()
    tell(done={"code": child.returncode})


def remove(options: dict[str, Any]) -> None:
    """Remove all that was brought or made here, unless another measurement uses it."""
    shutil.rmtree(str(FOLDER), ignore_errors=True)
    with locked() as lock:
        if not lock:
            return tell(done={})
        shutil.rmtree(str(VENV), ignore_errors=True)
        LOCK.unlink()
    with contextlib.suppress(OSError):
        BASE.rmdir()
    return tell(done={})
