"""Where everything lies, and the conversation with who asked."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[1]
BASE = FOLDER.parent
VENV = BASE / "venv"
LOCK = BASE / "lock"


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


@contextlib.contextmanager
def locked() -> Iterator[IO[str] | None]:
    """Hold the device's lock; nothing is given where another measurement holds it."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield lock


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
