"""Looking at a file from elsewhere in a child process, whose memory and time are bounded.

Native parsers (TFLite's, HDF5's) can end the process, or ask for all memory or all day, on a file
that was made to do so. Where a child came through, the file is used in this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bloodedge.errors import BloodedgeError, ModelError
from bloodedge.text import one_line

# Processor time to load a file and use it once, after all imports; larger files get more.
CPU_S = 5.0
# The rest is for slow cards and busy machines, where a child waits without working.
TIMEOUT_S = 120.0
REFUSED = 3
_BYTES_PER_CPU_S = 10 << 20


def check_in_child(
    module: str, words: Sequence[str], path: Path, *, timeout_s: float = TIMEOUT_S
) -> str:
    """Run `python -m module words...`, which ends in `check_here` or bounds itself, for a file.

    Returns:
        What it printed.

    Raises:
        ModelError: the child refused the file, was ended by it, or took too long.
    """
    # -P keeps the current folder, which may be as foreign as the file, off the import path.
    command = [sys.executable, "-P", "-m", module, *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path} did not load and run within {timeout_s:g} s") from None
    if done.returncode == REFUSED:
        raise ModelError(one_line(done.stdout.decode(errors="replace")))
    if done.returncode == -getattr(signal, "SIGXCPU", -1):
        raise ModelError(
            f"{path} takes too much processor time to load and run once",
            expected=f"{CPU_S:g} s, and a second more for each {_BYTES_PER_CPU_S >> 20} MiB",
        )
    if done.returncode != 0:
        raise ModelError(
            f"{path} is damaged: it ended the process that loaded it ({_ending(done)})",
            fix="export or download it again",
        )
    return done.stdout.decode(errors="replace")


def check_here(check: Callable[[], None], path: Path, *, memory: int, cpu_s: float = CPU_S) -> int:
    """Run a check in this process, bounded; print why it refused, and return the exit code.

    Args:
        check: raises a `BloodedgeError` where it refuses.
        path: the file, whose size adds to the time.
        memory: bytes of address space.
        cpu_s: seconds of processor time.
    """
    bound(path, memory=memory, cpu_s=cpu_s)
    try:
        check()
    except BloodedgeError as error:
        print(error)
        return REFUSED
    except MemoryError:
        print(f"{path} asks for more than {memory >> 30} GiB of memory")
        return REFUSED
    return 0


def bound(path: Path, *, memory: int, cpu_s: float = CPU_S) -> None:
    """Bound what this process, a child that loads a foreign file, may take; dump no core.

    Arguments as for `check_here`.
    """
    with contextlib.suppress(ImportError, OSError):
        import resource

        used = sum(os.times()[:2])
        limit = round(used + cpu_s + path.stat().st_size / _BYTES_PER_CPU_S) + 1
        for kind, bounds in (
            (resource.RLIMIT_CORE, (0, 0)),
            (resource.RLIMIT_CPU, (limit, limit + 2)),
            (resource.RLIMIT_AS, (memory, memory)),
        ):
            # macOS refuses to bound the address space; the others hold all the same.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, bounds)


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-done.returncode).name
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return one_line(lines[-1]) if lines else f"exit code {done.returncode}"
