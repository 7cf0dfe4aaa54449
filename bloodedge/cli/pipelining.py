"""`bloodedge pipeline`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.chain_figures import duration, print_plan
from bloodedge.cli.steps import run_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bloodedge.compress.chain.run import Planned
    from bloodedge.data.dataset import Dataset
    from bloodedge.deploy.pipeline.presets import Preset
    from bloodedge.errors import ConfigError

_NEEDS = "tensorflow"


def pipeline(
    preset: Annotated[
        str,
        typer.Option(
            "--preset", help="champion: teacher and three students; quick: one decent student."
        ),
    ],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Runs of each student, by default the preset's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the runs' names begin with.")
    ] = None,
    backend: options.Backend = None,
    devices: options.Devices = "1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps, how far and how long; run nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace finished runs that were made otherwise.")
    ] = False,
) -> None:
    """Make trained, verified and evaluated models from the data alone.

    The same command continues where it stopped: finished runs are used, interrupted ones continued.

    Without TensorFlow another backend trains what is to be trained. The command then fails (exit
    code 1), since the files are not there yet, and says how to go on where TensorFlow is.
    """
    from bloodedge.backend import check_backend, is_installed
    from bloodedge.cli.starting import start_training
    from bloodedge.console import say
    from bloodedge.data.sources import load_data
    from bloodedge.deploy.pipeline.presets import find_preset
    from bloodedge.deploy.pipeline.stage import finish_all, plan, train_all
    from bloodedge.train.config import FitConfig

    wanted = find_preset(preset).changed(name=name, seeds=seeds)
    asked = {"--preset": preset, "--data": data, "--size": size, "--seeds": seeds, "--name": name}
    words = [f"{option}={value}" for option, value in asked.items() if value is not None]
    words += ["--force"] if force else []
    missing = None if is_installed(_NEEDS) else _unfinished(words)

    def show(images: Dataset) -> None:
        print_timed(plan(wanted, images))
        if missing:
            print(missing)

    if dry_run and devices == "1":
        show(load_data(data, size=size))
        return
    chosen = check_backend(backend)
    images = start_training(data, size=size, backend=chosen, devices=devices, batch=FitConfig.batch)
    if dry_run:
        # How many devices share a batch is known now, and compared with finished runs.
        show(images)
        return
    if missing:
        # Now as well, since training takes hours.
        say(str(missing))
        train_all(wanted, images, force=force)
        raise missing
    if chosen == _NEEDS:
        finish_all(wanted, images, force=force)
        print_scores(wanted, images.title)
        return
    train_all(wanted, images, force=force)
    _finish_elsewhere(words)


def _unfinished(words: Sequence[str]) -> ConfigError:
    """Return what to say where the backend that the steps after training need is missing."""
    from bloodedge.errors import ConfigError
    from bloodedge.runs import runs_root

    command = shlex.join(["bloodedge", "pipeline", *words, f"--backend={_NEEDS}"])
    return ConfigError(
        f"{_NEEDS} is not installed: here the models are trained, but neither exported nor tested",
        fix=f"pip install {_NEEDS}, or copy {runs_root()} to where it is, and then: {command}",
    )


def _finish_elsewhere(words: Sequence[str]) -> None:
    """Go on in a process of its own: Keras cannot change its backend."""
    called, fix = f"the part on {_NEEDS}", "give the same command again, which goes on"
    run_step(["pipeline", *words, f"--backend={_NEEDS}"], called, fix=fix)


def print_timed(steps: Sequence[Planned]) -> None:
    """Print the steps, how far they have come, and how long the rest takes."""
    from bloodedge.deploy.pipeline.estimate import WHERE

    print_plan(steps, timed=True)
    known = sum(step.left or 0.0 for step in steps)
    unknown = sum(step.left is None for step in steps)
    beside = f" and {unknown} steps of unknown length" if unknown else ""
    rest = f"to do: {duration(known)}{beside}, {WHERE}"
    print(rest)


def print_scores(preset: Preset, title: str) -> None:
    """Print what was made, on which data, and which int8 file of each student val prefers."""
    from bloodedge.deploy.pipeline.scores import HEAD, preferred, rows
    from bloodedge.runs import runs_root
    from bloodedge.tables import print_table, table

    print_table(table(HEAD, rows(preset), words=("file",)))
    print(f"\nAccuracy on {title}.")
    for student in preset.students:
        if file := preferred(student, preset.prefix):
            print(f"{student.model}: val prefers {runs_root() / file}")
