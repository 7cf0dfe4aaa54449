"""What tells a command to stop: Ctrl-C, a kill (SIGTERM) and a closed terminal (SIGHUP).

All three end it in the same order, as an exception that lets each block clean up behind itself.
What is ignored when a command starts, as a closed terminal is under nohup, stays so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# Windows lacks the last.
STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_HANG_UP = getattr(signal, "SIGHUP", None)
# Within it another one says the same: an impatient second Ctrl-C, or one from the terminal and one
# from our parent. It must not cut short what the first made us clean up.
_SAME_S = 1.0
# Long enough for the callback that swallowed a stop to be over.
_AGAIN_S = 0.05
# Set for a command whose stdin is a pipe of the one that started it.
TIED = "BLOODEDGE_TIED"


class Stopped(KeyboardInterrupt):
    """We were told to stop.

    Attributes:
        number: the signal that told us.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Last:
    """The last signal that told us to stop, and when; 0 where none did."""

    number = 0
    at = float("-inf")


def exit_code() -> int:
    """Return the exit code by which a shell knows what stopped a command."""
    return 128 + (_Last.number or signal.SIGINT)


@contextmanager
def orderly_stops() -> Iterator[None]:
    """Let what tells us to stop raise `Stopped` inside the block, also where it would be lost."""
    _Last.number, _Last.at = 0, float("-inf")
    _keep_lost()
    with _taken(_stop):
        yield


def _stop(number: int, frame: FrameType | None) -> None:
    if time.monotonic() - _Last.at > _SAME_S:
        _note(number)
        raise Stopped(number)


def _note(number: int) -> None:
    _Last.number, _Last.at = number, time.monotonic()
    if number == _HANG_UP:
        # The shell may say so again, while what is complete is being written.
        signal.signal(number, signal.SIG_IGN)
        _silence()


def _silence() -> None:
    """Nobody reads any more, and writing to a terminal that is gone fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)


@contextmanager
def _taken(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Take the signals that are not ignored inside the block."""
    # Python takes signals in its main thread alone.
    here = threading.current_thread() is threading.main_thread()
    found = {number: signal.getsignal(number) for number in STOPS if here}
    usual = {number: way for number, way in found.items() if way != signal.SIG_IGN}
    for number in usual:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, way in usual.items():
            # A terminal that was closed meanwhile stays so.
            if signal.getsignal(number) == handler:
                signal.signal(number, way or signal.SIG_DFL)


class Stops:
    """The first of them, put off until we can see to it; what comes after that changes nothing."""

    def __init__(self) -> None:
        self._told = 0
        self._raises = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take them inside the block."""
        with _taken(self._stop):
            yield

    def raise_from_here(self) -> None:
        """Raise `Stopped` from now on.

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
        _note(number)
        if self._raises:
            raise Stopped(number)


def _keep_lost() -> None:
    """Send a stop again that arrived where Python ignores exceptions, and would be lost.

    JAX, which TensorFlow loads as well, has a callback of the garbage collector: a signal that
    comes during a collection raises in there, and the command would go on to its end.
    """
    usual = sys.unraisablehook

    def send_again(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            usual(lost)
            return
        number = getattr(lost.exc_value, "number", signal.SIGINT)
        if number == _HANG_UP:
            # It is ignored by now.
            number = signal.SIGTERM
        _Last.at = float("-inf")
        timer = threading.Timer(_AGAIN_S, _tell_main_thread, (number,))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = send_again


def _tell_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


def end_at_once() -> None:
    """Let a kill and a closed terminal end us without a word, as they end any program.

    For several hosts that train together: they wait for each other in native code, where nothing
    could be raised, and at the end for one that is gone.
    """
    for number in STOPS[1:]:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end_with_parent() -> None:
    """End as by a kill when the command that started us as its step is gone, even by SIGKILL.

    Our stdin is then a pipe whose other end it holds, which the system closes.
    """
    if not os.environ.pop(TIED, ""):
        return

    def wait() -> None:
        with suppress(OSError):  # closed, which is an end as well
            while os.read(0, 1 << 10):
                pass
        _tell_main_thread(signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
