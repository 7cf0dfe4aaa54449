"""Keeping the chatter of TensorFlow, its converter and the runtimes from the user."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard what native code and Python print to stdout and stderr; exceptions pass.

    TensorFlow and LiteRT write to the file descriptors, past `sys.stderr`. Not for use while
    other threads print.
    """
    saved = [os.dup(fd) for fd in (1, 2)]
    try:
        with Path(os.devnull).open("w") as sink:
            for fd in (1, 2):
                os.dup2(sink.fileno(), fd)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for fd, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, fd)
            os.close(copy)
