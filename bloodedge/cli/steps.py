"""A command that runs other `bloodedge` commands as its steps, each in a process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence

import typer

from bloodedge.children import Stopped, run_child


def run_step(
    words: Sequence[str], called: str, *, fix: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run a `bloodedge` command to its end.

    Args:
        words: the command's, after `bloodedge`.
        called: what to call the step where a signal ends it, and
        fix: what to do about that.
        environment: its variables; by default ours.

    Raises:
        typer.Exit: it failed and has said why; or a kill or a closed terminal has ended both, with
            the exit code by which a shell tells so.
        ChildError: a signal that was not for us ended it.
        KeyboardInterrupt: Ctrl-C, after the step has ended.
    """
    # -P: the current folder may hold modules of other things.
    command = [sys.executable, "-P", "-m", "bloodedge", *words]
    try:
        code = run_child(command, called, fix=fix, environment=environment)
    except Stopped as stop:
        if stop.number == signal.SIGINT:
            raise
        raise typer.Exit(128 + stop.number) from None
    if code:
        raise typer.Exit(code)
