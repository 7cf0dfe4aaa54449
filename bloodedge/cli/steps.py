"""A command that runs other `bloodedge` commands as its steps, each in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import typer

from bloodedge.children import run_child
from bloodedge.interrupts import TIED


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
        typer.Exit: it failed and has said why.
        ChildError: a signal that was not for us ended it.
        Stopped: we were told to stop, after the step has ended.
    """
    # -P: the current folder may hold modules of other things.
    command = [sys.executable, "-P", "-m", "bloodedge", *words]
    tied = {**(os.environ if environment is None else environment), TIED: "1"}
    if code := run_child(command, called, fix=fix, environment=tied, tied=True):
        raise typer.Exit(code)
