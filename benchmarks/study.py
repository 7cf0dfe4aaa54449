"""`bloodedge reproduce study`: every row of the original study, under its recipe and under ours.

The study trained on the official split of BloodMNIST at 64x64 for 20 epochs without augmentation,
one run a row. Each row here is a `train` run and an evaluation on test; a row whose runs are there
is not trained again, and an interrupted one is continued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from bloodedge.benchmarks.comparison import evaluated_otherwise
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.errors import BloodedgeError, ConfigError, RunError
from bloodedge.references import find_model
from bloodedge.runs import Run, is_finished, load_run, partial_folder, runs_root
from bloodedge.train.checkpoint import NotContinuedError
from bloodedge.train.finished import ASIDE, settings_that_differ
from bloodedge.train.recipes import RECIPES, fit_config
from bloodedge.train.registry import models
from bloodedge.train.stage import TrainConfig, train

# The study's test accuracy in percent, best first.
PUBLISHED = {
    entry.name: entry.published
    for entry in sorted(models().values(), key=lambda entry: -(entry.published or 0))
    if entry.published is not None
}


@dataclass(frozen=True)
class StudyConfig:
    """Which rows to train.

    Attributes:
        models: rows of the study; the smallest first where time is short.
        recipes: `study`, `strong` or both.
        seeds: one run a row for each.
        epochs: another number of epochs than the recipe's, for a trial.
        precision: of the activations; see `FitConfig`.

    Raises:
        ConfigError: an unknown row or recipe, or no seed.
    """

    models: tuple[str, ...] = tuple(PUBLISHED)
    recipes: tuple[str, ...] = ("study", "strong")
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        for given, known, what in (
            (self.models, PUBLISHED, "row of the study"),
            (self.recipes, RECIPES, "recipe"),
        ):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise ConfigError(
                    f"no {what} {', '.join(map(repr, unknown))}", expected=", ".join(known)
                )
        if not self.seeds:
            raise ConfigError("no seed", expected="at least one")

    @property
    def batch(self) -> int:
        """The largest number of images that divides a batch of every row, for several devices."""
        return math.gcd(*(fit_config(r, m).batch for r in self.recipes for m in self.models))


def run_name(model: str, recipe: str, seed: int) -> str:
    """Return the name of a row's run."""
    return f"{model}-{recipe}" + (f"-seed{seed}" if seed else "")


def reproduce(config: StudyConfig, data: Dataset) -> None:
    """Train and evaluate what is missing, one run after the other.

    A row that fails is named and left for the next time: this may run unattended for days.

    Raises:
        BloodedgeError: rows failed; of a single row, its own error: see
            `bloodedge.train.stage.train`; or a finished or interrupted run of a row's name has
            other settings or other data, or one of its evaluation's name is of another training,
            other images or another split.
    """
    failed: list[str] = []
    rows = list(product(config.recipes, config.models, config.seeds))
    for recipe, model, seed in rows:
        name = run_name(model, recipe, seed)
        try:
            _one(model, recipe, seed, config, data)
        except BloodedgeError as error:
            if len(rows) == 1:
                raise
            failed.append(name)
            say(f"{name} failed: {error}")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(rows)} rows failed, as said above: {', '.join(failed)}",
            fix="mend that and repeat the command, which does what is missing",
        )


def _one(model: str, recipe: str, seed: int, config: StudyConfig, data: Dataset) -> None:
    name = run_name(model, recipe, seed)
    fit = fit_config(recipe, model, epochs=config.epochs, seed=seed, precision=config.precision)
    wanted = TrainConfig(model, fit, name, resume=True)
    if is_finished(name):
        _check_same(wanted, data)
    else:
        _train(wanted, data)
    if not is_finished(f"{name}-test"):
        evaluate(EvaluateConfig(name), data)
        return
    tested = load_run(runs_root() / f"{name}-test")
    differences = evaluated_otherwise(tested.manifest, find_model(name).sha256, data.fingerprint)
    if differences:
        raise RunError(
            f"{tested.path} does not tell what {name} has on test of {data.title}: "
            f"it is {' and '.join(differences)}",
            fix="remove it",
        )
    say(f"{name}: done before")


def _train(wanted: TrainConfig, data: Dataset) -> None:
    """Train a row, or go on with it; this command has neither --resume nor --force to name."""
    try:
        train(wanted, data)
    except NotContinuedError as error:
        raise RunError(
            f"{wanted.name}: {error.why}",
            # The first command may have left it to the hardware, such as the precision.
            fix=f"ask for what it was started with, or remove {partial_folder(wanted.name)} to "
            "start over",
        ) from error


def _check_same(wanted: TrainConfig, data: Dataset) -> None:
    """Check that a finished run is the wanted row, not one of a trial or of other images."""
    folder = runs_root() / wanted.name
    # Large rows are trained where there is an accelerator, in its precision.
    aside = ASIDE | {"fit.precision", "devices"}
    differences = settings_that_differ(wanted, load_run(folder).manifest, data, aside)
    if differences:
        raise RunError(
            f"{folder} is another row: {', '.join(differences)}",
            fix=f"remove it and {folder}-test to train it again, or ask for the settings it has",
        )


def table(config: StudyConfig) -> str:
    """Return what has been run as a Markdown table; what has not says so."""
    lines = [
        "| row | study, % | " + " | ".join(f"{r} recipe, % [95 %]" for r in config.recipes) + " |",
        "| --- | --- |" + " --- |" * len(config.recipes),
    ]
    for model in config.models:
        cells = [_cell(model, recipe, config.seeds) for recipe in config.recipes]
        lines.append(f"| {model} | {PUBLISHED[model]:.2f} | " + " | ".join(cells) + " |")
    titles = sorted(
        {
            run.manifest["data"]["title"]
            for model in config.models
            for recipe in config.recipes
            for run in _tests(model, recipe, config.seeds)
        }
    )
    if titles:
        lines += ["", f"Test accuracy on {'; '.join(titles)}. The study: official split, one run."]
    return "\n".join(lines)


def _tests(model: str, recipe: str, seeds: Sequence[int]) -> list[Run]:
    names = (f"{run_name(model, recipe, seed)}-test" for seed in seeds)
    return [load_run(runs_root() / name) for name in names if is_finished(name)]


def _cell(model: str, recipe: str, seeds: Sequence[int]) -> str:
    scores = [run.manifest["metrics"]["test"] for run in _tests(model, recipe, seeds)]
    if not scores:
        return "not run yet"
    accuracy = [100 * score["accuracy"] for score in scores]
    if len(scores) == 1:
        low, high = (100 * bound for bound in scores[0]["accuracy_95ci"])
        return f"{accuracy[0]:.2f} [{low:.2f}, {high:.2f}]"
    mean = sum(accuracy) / len(accuracy)
    return f"{mean:.2f}, {len(scores)} seeds from {min(accuracy):.2f} to {max(accuracy):.2f}"
