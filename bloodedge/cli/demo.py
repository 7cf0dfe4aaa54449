"""`bloodedge demo`: the whole way on the built-in synthetic set, by the commands a user types."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from bloodedge.cli.steps import run_step

_DATA = "--data synthetic"
# A quarter of VGG-16's channels: the full width would take hours on two cores.
# After fewer epochs it is unsure of many images, and files could miss their gates by chance.
# The usual gates, a loss of one point in all and of five in a class, are five images of the set's
# 480 and three of a class: chance. How many answers may change at all, 3 in 100, stays as it is.
_GATES = "--max-drop 0.03 --max-class-drop 0.1"
_STEPS = (
    "data info synthetic",
    f"train --model vgg16 --width 0.25 --epochs 20 --progressive 12x32 {_DATA} --force",
    f"distill --teacher vgg16 --student cnn_se --epochs 50 {_DATA} --force",
    f"export vgg16 --tflite {_GATES} {_DATA} --force",
    f"export cnn_se --tflite {_GATES} {_DATA} --force",
    f"evaluate vgg16 cnn_se vgg16-tflite cnn_se-tflite {_DATA} --force",
    f"benchmark vgg16-tflite cnn_se-tflite --images 200 --quick {_DATA} --force",
    "report --out {runs}/report --force",
)


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where the demo's runs go.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the whole way on synthetic cells in a few minutes: train, distill, export, report.

    The teacher is a VGG-16 with a quarter of its channels; every figure says synthetic. Runs of an
    earlier demo are replaced; a folder with runs on other images is refused.
    """
    _refuse_others(folder)
    environment = {**os.environ, "BLOODEDGE_RUNS": str(folder)}
    started = time.monotonic()
    for number, step in enumerate(_STEPS, start=1):
        command = step.format(runs=shlex.quote(str(folder)))
        print(f"\n[{number}/{len(_STEPS)}] bloodedge {command}", flush=True)
        called = f"step {number} of {len(_STEPS)}"
        fix = "give the same command again, which starts anew"
        run_step(shlex.split(command), called, fix=fix, environment=environment)
    minutes = (time.monotonic() - started) / 60
    report = folder / "report" / "report.html"
    print(f"\nAll on synthetic images, in {minutes:.1f} minutes. Open {report}")


def _refuse_others(folder: Path) -> None:
    """Refuse a folder with runs on real images: the demo replaces runs of the names it uses."""
    from bloodedge.errors import ConfigError
    from bloodedge.runs import load_run, run_folders

    for run in run_folders(folder):
        data = load_run(run).manifest["data"]
        if not (isinstance(data, dict) and data.get("synthetic")):
            raise ConfigError(
                f"{folder} holds {run.name}, a run on other images than the demo's",
                expected="a new folder, or an earlier demo's",
                fix="choose another --out",
            )
