"""Child processes that do a part of a command's work, and end when the command is told to."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bloodedge.errors import BloodedgeError
from bloodedge.interrupts import Stopped, Stops

# What a child takes at most to write what it has.
_STOP_S = 30.0
# And to begin with that, after a Ctrl-C which the terminal sent it, too.
_CTRL_C_S = 1.0


class ChildError(BloodedgeError):
    """A part of a command that something outside ended."""


def run_child(
    command: Sequence[str],
    called: str,
    *,
    fix: str,
    environment: Mapping[str, str] | None = None,
    tied: bool = False,
) -> int:
    """Run a program to its end; Ctrl-C, a kill and a closed terminal end it as they end us.

    It is sent the same signal, and killed if it goes on for half a minute. What we ignore, as a
    closed terminal is under nohup, ends neither.

    Args:
        command: the program and its arguments.
        called: what to call it where it is ended by a signal of its own, and
        fix: what to do about that.
        environment: its variables; by default ours.
        tied: its stdin, by default ours, is a pipe that ends when we do, even by SIGKILL.

    Returns:
        Its exit code, 0 or more.

    Raises:
        ChildError: a signal that was not for us ended it.
        Stopped: we were told to stop. After a closed terminal, what we print goes nowhere.
    """
    stdin = subprocess.PIPE if tied else None
    stops = Stops()
    # Put off: while a child starts nobody could end it. Left alone, a kill would end us and not
    # the child, which would go on for nobody.
    with stops.taken(), subprocess.Popen(command, env=environment, stdin=stdin) as child:
        try:
            stops.raise_from_here()
            code = child.wait()
        except Stopped as stop:
            _end(child, stop.number)
            raise
    if code < 0:
        name = _name_of(-code)
        # By it the system ends who takes the last memory.
        memory = "free memory, which may have run out, and " if name == "SIGKILL" else ""
        raise ChildError(f"{called} was ended by {name}", fix=memory + fix)
    return code


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # A real-time signal has none.
        return f"signal {number}"


def _end(child: subprocess.Popen[bytes], number: int) -> None:
    """Pass a signal on and wait for the child's end."""
    if number == signal.SIGINT:
        # From a terminal the child has it already; another one could cut short what it does then.
        with suppress(subprocess.TimeoutExpired):
            child.wait(_CTRL_C_S)
    child.send_signal(number)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
