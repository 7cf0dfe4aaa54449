"""The command line: parses, calls a stage, prints, and turns errors into one line each."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from bloodedge.errors import BloodedgeError, in_words
from bloodedge.interrupts import end_with_parent, exit_code, orderly_stops

EXIT_ERROR = 1
# What Typer makes of a `KeyboardInterrupt`, whichever signal it came by.
_STOPPED = 130


def main() -> None:
    """Run `bloodedge` and exit with its code."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file or folder may hold bytes that are no character of the terminal's.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with orderly_stops():
            end_with_parent()
            # It takes a moment, in which Ctrl-C may come as well.
            from bloodedge.cli.app import app

            app()
    except BloodedgeError as error:
        _fail(str(error), EXIT_ERROR)
    except OSError as error:
        _fail(in_words(error), EXIT_ERROR)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as stop:
        if stop.code == _STOPPED:
            _interrupted()
        raise


def _open_closed_streams() -> None:
    """Give a process that was started without some of its streams the null device in their place.

    The next files that it opens would get their numbers, and what native code prints.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")


def _interrupted() -> NoReturn:
    _fail(
        "interrupted; no finished result was changed; compress and pipeline continue by "
        "the same command, training, distillation or pruning by the same with --resume",
        exit_code(),
    )


def _fail(line: str, code: int) -> NoReturn:
    print(f"bloodedge: {line}", file=sys.stderr)
    sys.exit(code)
