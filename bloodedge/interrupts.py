"""Ctrl-C that comes at a bad moment."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

# Long enough for the callback that swallowed it to be over.
_AGAIN_S = 0.05


def keep_interrupts() -> None:
    """Send a Ctrl-C again that arrived where Python ignores exceptions, and would be lost.

    JAX, which TensorFlow loads as well, has a callback of the garbage collector: a signal that
    comes during a collection raises in there, and the command would go on to its end.
    """
    usual = sys.unraisablehook

    def send_again(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            usual(lost)
            return
        main = threading.main_thread().ident
        if main is not None:
            timer = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
            timer.daemon = True
            timer.start()

    sys.unraisablehook = send_again
