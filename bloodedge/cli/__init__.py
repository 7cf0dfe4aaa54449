"""The command line: parses, calls a stage, prints, and turns errors into one line each."""

from __future__ import annotations

import sys

from bloodedge.cli.app import app
from bloodedge.errors import BloodedgeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `bloodedge` and exit with its code."""
    try:
        app()
    except BloodedgeError as error:
        _fail(str(error), EXIT_ERROR)
    except KeyboardInterrupt:
        _fail(
            "interrupted; nothing half-written is kept as a result, and --resume continues a "
            "run that has a checkpoint",
            EXIT_INTERRUPTED,
        )


def _fail(line: str, code: int) -> None:
    print(f"bloodedge: {line}", file=sys.stderr)
    sys.exit(code)
