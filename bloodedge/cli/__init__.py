"""The command line: parses, calls a stage, prints, and turns errors into one line each."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

from bloodedge.cli.app import app
from bloodedge.errors import BloodedgeError, in_words

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `bloodedge` and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file or folder may hold bytes that are no character of the terminal's.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except BloodedgeError as error:
        _fail(str(error), EXIT_ERROR)
    except OSError as error:
        _fail(in_words(error), EXIT_ERROR)
    except SystemExit as stop:
        # Typer turns Ctrl-C into this code without a word.
        if stop.code == EXIT_INTERRUPTED:
            _fail(
                "interrupted; no finished result was changed; compress and pipeline continue by "
                "the same command, training, distillation or pruning by the same with --resume",
                EXIT_INTERRUPTED,
            )
        raise


def _fail(line: str, code: int) -> NoReturn:
    print(f"bloodedge: {line}", file=sys.stderr)
    sys.exit(code)
