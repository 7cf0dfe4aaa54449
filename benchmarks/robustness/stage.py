"""The whole measurement: models and images in, tables and a figure out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.open_models import open_models
from bloodedge.benchmarks.recorded import record
from bloodedge.benchmarks.robustness import COMMAND, stem_of
from bloodedge.benchmarks.robustness.cells import answers, conditions
from bloodedge.benchmarks.robustness.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    Corruption,
    without_effect,
)
from bloodedge.benchmarks.robustness.figure import draw
from bloodedge.benchmarks.robustness.summary import Hits, accuracies, summary
from bloodedge.benchmarks.robustness.text import HEADER, idle_strengths, render, table_rows
from bloodedge.benchmarks.robustness.unseen import UNSEEN
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.data.sources import load_data
from bloodedge.deploy.evaluate import file_entry
from bloodedge.deploy.predict import LoadedModel
from bloodedge.errors import ConfigError
from bloodedge.files import write_csv
from bloodedge.runs import package_versions


@dataclass(frozen=True)
class RobustnessConfig:
    """What to measure and where to put it.

    Attributes:
        models: what `bloodedge evaluate` takes; the others are compared with the first.
        data: as for `--data`.
        out: the folder of the tables, the figure and the kept answers.
        strengths: how many of the five strengths, from the weakest.
        seed: of every random draw.
        workers: TFLite interpreters side by side; by default one per core.
        size: as for `--size`.
        split: whose images are spoilt: `test`, or `val` to choose between models.
        unseen: whether to measure the corruptions that no recipe trains with instead.

    Raises:
        ConfigError: no model, or a number out of range.
    """

    models: tuple[str, ...]
    data: str
    out: Path
    strengths: int = STRENGTHS
    seed: int = 0
    workers: int | None = None
    size: int | None = None
    split: str = "test"
    unseen: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be measured, before anything is loaded."""
        if not self.models:
            raise ConfigError("no model given", expected="a run, a file or a zoo model")
        if not 1 <= self.strengths <= STRENGTHS:
            raise ConfigError(f"--strengths {self.strengths}", expected=f"1 to {STRENGTHS}")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}", expected="0 or more")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}", expected="at least 1")

    @property
    def corruptions(self) -> tuple[Corruption, ...]:
        """What spoils the images."""
        return UNSEEN if self.unseen else CORRUPTIONS

    @property
    def stem(self) -> str:
        """What the files are called."""
        return stem_of(unseen=self.unseen)

    @property
    def command(self) -> str:
        """The command that measures this, without where it puts it and how fast."""
        words = [*self.models, "--data", self.data]
        words += ["--size", str(self.size)] if self.size is not None else []
        words += ["--split", self.split] if self.split != "test" else []
        words += ["--strengths", str(self.strengths)] if self.strengths != STRENGTHS else []
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--unseen"] if self.unseen else []
        return f"{COMMAND} {shlex.join(words)}"


def robustness(config: RobustnessConfig) -> Mapping[str, Any]:
    """Measure what has not been measured, write every file, and return the recorded JSON.

    Raises:
        ModelError: a model is unknown or damaged, or does not fit the data.
        DataError: the data is unknown or damaged.
        BloodedgeError: the folder cannot be written.
    """
    data = load_data(config.data, size=config.size)
    models = open_models(config.models, data)
    wanted = conditions(config.corruptions, config.strengths)
    idle = {c.name: without_effect(c, config.strengths, data.size) for c in config.corruptions}
    for name, strengths in idle.items():
        if strengths:
            say(f"{name}: {idle_strengths(strengths, data.size)}")
    labels = data[config.split].labels
    hits: Hits = {name: {} for name in models}
    asked = answers(
        models,
        data,
        wanted,
        config.out / "cells",
        split=config.split,
        seed=config.seed,
        workers=config.workers,
    )
    for condition, predicted in asked:
        for name, classes in predicted.items():
            hits[name][condition.name] = classes == labels
    found = _found(config, data, models, hits, idle)
    write_csv(config.out / f"{config.stem}.csv", HEADER, table_rows(found))
    draw(found, config.out / f"{config.stem}.png")
    record(config.out, config.stem, found, partial(render, stem=config.stem))
    return found


def _found(
    config: RobustnessConfig,
    data: Dataset,
    models: Mapping[str, LoadedModel],
    hits: Hits,
    idle: Mapping[str, list[int]],
) -> dict[str, Any]:
    return {
        "schema": "bloodedge-robustness/1",
        "command": config.command,
        "data": data.describe(),
        "split": config.split,
        "images": len(data[config.split]),
        "seed": config.seed,
        "strengths": config.strengths,
        "corruptions": [
            {
                "name": c.name,
                "parameter": c.parameter,
                "values": list(c.values[: config.strengths]),
                "source": c.source,
                **({"without_effect": idle[c.name]} if idle[c.name] else {}),
            }
            for c in config.corruptions
        ],
        "models": {name: file_entry(model.reference) for name, model in models.items()},
        "correct": accuracies(hits, [c.name for c in config.corruptions], config.strengths),
        "summary": summary(hits, [c.name for c in config.corruptions], config.strengths),
        "packages": package_versions(),
    }
