"""Child processes that do a part of a command's work, and end when the command is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType, TracebackType

from bloodedge.errors import BloodedgeError

# Windows lacks the last.
_STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# What a child takes at most to write what it has.
_STOP_S = 30.0
# And to begin with that, after a Ctrl-C which the terminal sent it, too.
_CTRL_C_S = 1.0


class ChildError(BloodedgeError):
    """A part of a command that something outside ended."""


class Stopped(KeyboardInterrupt):
    """We were told to stop while a child worked, and the child has ended.

    Attributes:
        number: the signal that told us.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


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
    with _Stops() as stops, subprocess.Popen(command, env=environment, stdin=stdin) as child:
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


class _Stops:
    """Takes the first signal that tells us to stop, as a context manager.

    Left alone, a kill would end us and not the child, which would go on for nobody.
    """

    def __init__(self) -> None:
        self._told = 0
        self._raises = False
        # Python takes signals in its main thread alone.
        here = threading.current_thread() is threading.main_thread()
        usual = {number: signal.getsignal(number) for number in _STOPS if here}
        self._usual = {number: way for number, way in usual.items() if way != signal.SIG_IGN}

    def __enter__(self) -> _Stops:
        for number in self._usual:
            signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, way in self._usual.items():
            signal.signal(number, way or signal.SIG_DFL)
        if self._told == getattr(signal, "SIGHUP", None):
            # The shell may say so again, while what is complete is being written.
            signal.signal(self._told, signal.SIG_IGN)

    def raise_from_here(self) -> None:
        """Raise `Stopped` from now on: before, nobody could have ended a child that was starting.

        Raises:
            Stopped: we have been told already.
        """
        self._raises = True
        if self._told:
            raise Stopped(self._told)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            return
        self._told = number
        if number == getattr(signal, "SIGHUP", None):
            _silence()
        if self._raises:
            raise Stopped(number)


def _silence() -> None:
    """Nobody reads any more, and writing to a terminal that is gone fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)
