"""The application with its commands; each imports what is heavy when it runs."""

from __future__ import annotations

import typer

from bloodedge.cli import compressing, training

app = typer.Typer(
    name="bloodedge",
    help="Train, compress, verify and benchmark blood-cell classifiers for edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(training.train)
app.command("distill")(compressing.distill)
