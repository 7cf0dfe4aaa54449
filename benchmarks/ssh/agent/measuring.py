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

from .runtime import present
from .talk import BASE, FOLDER, LOCK, VENV, alone, detached, fail, locked, tell

STATE, LOG, EXIT = FOLDER / "state.json", FOLDER / "log", FOLDER / "exit"
# That the measurement was told to end: a device that is shut down ends it in the same way.
STOPPED = FOLDER / "stopped"
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

    One that went down with the device, or ended otherwise without its whole result, goes on where
    it was, once its exit code was told; not one that was told to end.
    """
    child = start(options) if to_start(options["from"] > 0) else None
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


def to_start(heard: bool) -> bool:
    """Return whether there is nothing yet to follow, or it ended and can go on.

    Args:
        heard: whether the one who asks has read some of the log.
    """
    if not STATE.exists():
        return True
    if not ended() or (RESULT.exists() and not unfinished()):
        return False
    # Who was cut off still has to hear how it ended, unless it was the device that went down.
    return not (heard and EXIT.exists() and read_state().get("boot") == boot())


def start(options: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the measurement, or go on with it, and write down what was started."""
    kept = read_state().get("options")
    if kept is None:
        # A damaged record no longer says which Python it was.
        python = options["python"] or present()[0] or fail("no Python here has a runtime any more")
        kept = {**options, "python": python}
    for path in (EXIT, STOPPED):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    command = [sys.executable, "-m", "agent", "supervise", json.dumps(kept)]
    with LOG.open("ab" if options["from"] > 0 else "wb") as out:
        child = detached(command, out)
    state = {"options": kept, "pid": child.pid, "began": began(child.pid), "boot": boot()}
    write(STATE, json.dumps(state))
    return child


def read_state() -> dict[str, Any]:
    """Return what was started, as which process, in which boot; nothing where that is damaged.

    `began` tells the process from a later one of that number.
    """
    try:
        state = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(state, dict) and {"options", "pid", "boot"} <= set(state)
    return state if whole else {}


def unfinished() -> bool:
    """Return whether the runner has left something to do without having been told to."""
    return PARTIAL.exists() and not STOPPED.exists()


def supervise(options: dict[str, Any]) -> None:
    """Run the bundle in a session of its own, and write its exit code when it ends."""
    with locked() as lock:
        if not lock:
            print(f"error: {BUSY}", flush=True)
            write(EXIT, "2")
            return
        command = [options["python"], "run.py", *options["options"]]
        if PARTIAL.exists():
            command.append("--resume")
        child = subprocess.Popen(command, cwd=str(FOLDER), stdin=subprocess.DEVNULL)
        # From `stop`, or when the device is shut down: the runner writes what it has.
        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
        write(EXIT, str(child.wait()))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, also when the power fails."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(str(path.parent), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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


def began(pid: int) -> str:
    """Return when a process was started, in clock ticks since the boot; empty where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    # The second field is a name in brackets, which may hold spaces and brackets; this is the 22nd.
    return stat.rpartition(")")[2].split()[19]


def ended() -> bool:
    """Return whether the measurement is over, in whatever way."""
    if EXIT.exists():
        return True
    state = read_state()
    if not state or state["boot"] != boot():
        return True
    try:
        os.kill(state["pid"], 0)
    except (ProcessLookupError, PermissionError):
        # It may have ended just now, and its number may be another user's process by now.
        return True
    # Or another process of ours, which is not to be ended. Older records do not say.
    return bool(state.get("began")) and began(state["pid"]) != state["began"]


def stop(options: dict[str, Any]) -> None:
    """End the measurement as Ctrl-C does, and wait until it has written what is complete."""
    until = time.monotonic() + STOP_SECONDS
    # A full disk is no reason to go on measuring.
    with contextlib.suppress(OSError):
        STOPPED.touch()
    if STATE.exists() and not ended():
        os.kill(read_state()["pid"], signal.SIGTERM)
        while not ended() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        if not ended():
            os.killpg(read_state()["pid"], signal.SIGKILL)
    tell(done={"code": exit_code()})


def fetch(options: dict[str, Any]) -> None:
    """Give the result; where there is none, or not all of it yet, whether the runner can go on."""
    if not RESULT.exists() or unfinished():
        return tell(done={"result": None, "partial": PARTIAL.exists()})
    if RESULT.stat().st_size > RESULT_LIMIT:
        fail("the result is larger than 16 MiB")
    return tell(done={"result": RESULT.read_text(encoding="utf-8")})


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
