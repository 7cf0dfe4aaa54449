"""Which layers a student should have: candidates by accuracy on val, bytes and latency.

    python -m bloodedge.benchmarks.student_design train --data D [--student cnn_se] [--epochs 24]
        [--seeds 1] [--own-recipe]
    python -m bloodedge.benchmarks.student_design measure --data D [--student cnn_se]
        [--epochs 24] [--seeds 1] [--own-recipe]

`train` makes a run of each candidate on any backend and continues what was interrupted; `measure`
needs TensorFlow and prints the table, as Markdown. Test is not read. All are trained by the recipe
of `cnn_se`, or with `--own-recipe` by that of the student whose place they would take.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import Variant, chosen, exit_code, run_missing, score
from bloodedge.compress.chain.link import Link
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.data.sources import load_data
from bloodedge.errors import RunError
from bloodedge.runs import Run, is_finished, load_run, open_run, runs_root
from bloodedge.train.architecture import Ready
from bloodedge.train.config import FitConfig
from bloodedge.train.models.cnn_se import PLANS, Conv, Plan, build_student
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import MODEL_FILE, Fitted, fit_run
from bloodedge.train.targets import HardLabels

# What else was tried in each student's place, by its stem and by what it has more or less of. All
# had dropout then, which the two smallest have no longer.
CANDIDATES: dict[str, dict[str, Plan]] = {
    "cnn_se": {
        "cnn_se": PLANS["cnn_se"],
        "patch4-wide": Plan(32, (Conv(32, 1, True), Conv(64, 2, True), Conv(48)), patch=4),
        "patch4-deep": Plan(
            24, (Conv(24, 1, True), Conv(40, 2, True), Conv(40), Conv(40), Conv(40)), patch=4
        ),
        "patch4-early": Plan(
            24, (Conv(40, 2, True), Conv(40, 1, True), Conv(40, 2), Conv(40)), patch=4
        ),
        "one-16x16": Plan(
            8, (Conv(16, 2, True), Conv(40, 2, True), Conv(40), Conv(40, 2), Conv(40))
        ),
        "more-16x16": Plan(
            8, (Conv(24, 2, True), Conv(40, 2, True), Conv(40), Conv(40, 2), Conv(40))
        ),
        "more-4x4": Plan(
            8, (Conv(24, 2, True), Conv(40, 2, True), Conv(40, 2), Conv(40), Conv(40))
        ),
        "wide-stem": Plan(
            16, (Conv(24, 2, True), Conv(40, 2, True), Conv(40), Conv(40, 2), Conv(32))
        ),
        "deep": Plan(
            8, (Conv(24, 2, True), Conv(24), Conv(40, 2, True), Conv(40), Conv(40, 2), Conv(24))
        ),
        "one-se": Plan(16, (Conv(32, 2), Conv(32), Conv(40, 2), Conv(40, 1, True), Conv(32, 2))),
    },
    "cnn_se_nano": {
        "cnn_se_nano": replace(PLANS["cnn_se_nano"], dropout=Plan.dropout),
        "nano-deep-se": Plan(16, (Conv(16, 2), Conv(16), Conv(24, 2, True), Conv(24), Conv(16, 2))),
        "nano-short": Plan(16, (Conv(24, 2), Conv(24), Conv(24, 2), Conv(16))),
        "nano-16x16": Plan(16, (Conv(24, 2), Conv(24), Conv(24), Conv(16, 2))),
        "nano-deep": Plan(16, (Conv(16, 2), Conv(16), Conv(24, 2), Conv(24), Conv(24, 2))),
        "nano-deep-16x16": Plan(16, (Conv(16, 2), Conv(16), Conv(24), Conv(24, 2), Conv(24))),
        "nano-wide": Plan(16, (Conv(24, 2), Conv(32), Conv(24, 2))),
        "nano-wide-16x16": Plan(16, (Conv(24, 2), Conv(32), Conv(24))),
        "nano-se": Plan(16, (Conv(16, 2), Conv(24), Conv(24, 2, True), Conv(24))),
        "nano-se-wide": Plan(8, (Conv(24, 2), Conv(24), Conv(24, 2, True), Conv(24))),
        "nano-se-last": Plan(8, (Conv(24, 2), Conv(24), Conv(24), Conv(24, 2, True))),
        "nano-se-first": Plan(16, (Conv(16, 2, True), Conv(24), Conv(24, 2), Conv(24))),
    },
    "cnn_se_pico": {
        "cnn_se_pico": replace(PLANS["cnn_se_pico"], dropout=Plan.dropout),
        "pico-deep-se": Plan(16, (Conv(8, 2), Conv(8), Conv(16, 2, True), Conv(16))),
        "pico-se": Plan(16, (Conv(16, 2), Conv(16), Conv(16, 2, True))),
        "pico-narrow-stem-se": Plan(8, (Conv(16, 2), Conv(16), Conv(16, 2, True))),
        "pico-deep": Plan(16, (Conv(8, 2), Conv(16), Conv(16, 2), Conv(16))),
        "pico-deep-narrow": Plan(16, (Conv(16, 2), Conv(12), Conv(12, 2), Conv(12))),
        "pico-32x32": Plan(8, (Conv(8), Conv(16, 2), Conv(16), Conv(16, 2))),
        "pico-16x16": Plan(16, (Conv(16, 2), Conv(16), Conv(16))),
    },
}
_USUAL = "cnn_se"
_CALIBRATION = 256
_ROUNDS, _INVOKES = 30, 50


def plan_of(candidate: str) -> Plan:
    """Return a candidate's layers; no two students have candidates of one name.

    Raises:
        KeyError: there is none of that name.
    """
    return {name: plan for plans in CANDIDATES.values() for name, plan in plans.items()}[candidate]


def run_name(candidate: str, epochs: int, seed: int, recipe_of: str = _USUAL) -> str:
    """Return the name of a candidate's run; `recipe_of` is the model whose recipe trains it."""
    recipe = "" if recipe_of == _USUAL else f"-as-{recipe_of}"
    return f"design-{candidate}{recipe}-e{epochs}-s{seed}"


@dataclass(frozen=True)
class DesignConfig:
    """How a candidate is trained: its name and layers, and the recipe."""

    candidate: str
    plan: Plan
    fit: FitConfig
    name: str


def link(candidate: str, epochs: int, recipe_of: str, seed: int) -> Link:
    """Return the settings of a candidate's run, by a model's strong recipe, and what trains it."""
    fit = fit_config("strong", recipe_of, epochs=epochs, seed=seed)
    name = run_name(candidate, epochs, seed, recipe_of)
    return Link(candidate, DesignConfig(candidate, plan_of(candidate), fit, name), train_candidate)


def train_candidate(config: DesignConfig, data: Dataset) -> Run:
    """Train a candidate, continuing an interrupted training, and return its run."""
    import keras

    fit = config.fit
    keras.utils.set_random_seed(fit.seed)
    classes = len(data.class_names)
    net = build_student("student", config.plan, classes=classes, size=data.size)
    targets = HardLabels(data["train"].labels, classes, fit.label_smoothing)
    settings = {"candidate": config.candidate, "plan": asdict(config.plan), "fit": asdict(fit)}
    what = Fitted("train", targets, Ready(net, {}), fit, settings)
    with open_run(config.name, resumable=True, resume=True) as run:
        return fit_run(what, data, run)


@dataclass(frozen=True)
class Candidate:
    """What is known of a candidate.

    Attributes:
        accuracy: on val in float, in percent, of each seed.
        loss: on val over the last epochs, of each seed.
        parameters: weights of the net.
        macs: multiplications of an inference.
        sizes: bytes of each file, without metadata.
        times: microseconds of an inference, by file, one for each round.
    """

    accuracy: list[float]
    loss: list[float]
    parameters: int
    macs: int
    sizes: dict[str, int]
    times: dict[str, list[float]]


def measure(
    data: Dataset, names: list[str], epochs: int, seeds: int, recipe_of: str = _USUAL
) -> dict[str, Candidate]:
    """Convert the first run of each candidate and time the files in turn, on one thread.

    Raises:
        RunError: a run is of other data.
    """
    found: dict[str, Candidate] = {}
    timers: dict[tuple[str, str], Callable[[int], float]] = {}
    for name in names:
        runs = [runs_root() / run_name(name, epochs, seed, recipe_of) for seed in range(seeds)]
        done = [run for run in runs if is_finished(run.name)]
        if not done:
            say(f"{name}: not trained yet")
            continue
        _check_data(done, data)
        say(f"{name}: converting")
        found[name], files = _convert(done, data)
        timers |= {(name, kind): timer(content, data) for kind, content in files.items()}
    for _ in range(_ROUNDS):
        for (name, kind), seconds in timers.items():
            found[name].times[kind].append(1e6 * seconds(_INVOKES))
    return found


def _check_data(runs: list[Path], data: Dataset) -> None:
    for run in runs:
        about = load_run(run).manifest["data"]
        if about.get("fingerprint") != data.fingerprint:
            raise RunError(
                f"{run} is of other data: {about.get('title')}, not {data.title}",
                fix="give its --data, or remove it to train it again",
            )


def _convert(runs: list[Path], data: Dataset) -> tuple[Candidate, dict[str, bytes]]:
    from bloodedge.data.calibration import calibration_indices
    from bloodedge.deploy.convert import convert
    from bloodedge.deploy.flat.lean import lean
    from bloodedge.train.cost import count_macs
    from bloodedge.train.modelio import load_model

    model = load_model(runs[0] / MODEL_FILE)
    per_class = _CALIBRATION // len(data.class_names)
    images = data["train"].images[calibration_indices(data["train"].labels, per_class, 0)]
    files = {kind: lean(convert(model, kind, images)) for kind in ("float32", "int8")}
    accuracy, loss = zip(*map(score, runs), strict=True)
    candidate = Candidate(
        list(accuracy),
        list(loss),
        int(model.count_params()),
        count_macs(model),
        {kind: len(content) for kind, content in files.items()},
        {kind: [] for kind in files},
    )
    return candidate, files


def timer(content: bytes, data: Dataset) -> Callable[[int], float]:
    """Return a function that gives the fastest of so many invocations, in seconds."""
    from bloodedge.deploy.runtimes import find_runtime

    interpreter: Any = find_runtime().interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]
    image: NDArray[np.uint8] = data["val"].images[:1]
    interpreter.set_tensor(taken["index"], image.astype(taken["dtype"]))

    def fastest(count: int) -> float:
        best = float("inf")
        for _ in range(count):
            start = time.perf_counter()
            interpreter.invoke()
            best = min(best, time.perf_counter() - start)
        return best

    fastest(_INVOKES)
    return fastest


def table(found: dict[str, Candidate]) -> str:
    """Return the candidates as Markdown."""
    lines = [
        "| candidate | parameters | MACs | int8 KB | float32 µs | int8 µs | float32 / int8 "
        "| val accuracy, % | val loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        real, int8 = (median(one.times[kind]) for kind in ("float32", "int8"))
        accuracy = ", ".join(f"{a:.2f}" for a in one.accuracy)
        loss = ", ".join(f"{value:.4f}" for value in one.loss)
        lines.append(
            f"| {name} | {one.parameters:,} | {one.macs / 1e6:.2f} M | "
            f"{one.sizes['int8'] / 1000:.1f} | {real:.0f} | {int8:.0f} | {real / int8:.2f} | "
            f"{accuracy} | {loss} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, or measure what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("train", "measure"))
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--epochs", type=int, default=24, help="[24]")
    parser.add_argument("--seeds", type=int, default=1, help="[1]")
    parser.add_argument("--student", choices=CANDIDATES, default="cnn_se", help="[cnn_se]")
    parser.add_argument("--candidates", help="[all of the student]")
    parser.add_argument("--own-recipe", action="store_true", help="the student's, not cnn_se's")
    args = parser.parse_args()
    recipe_of = args.student if args.own_recipe else _USUAL
    known = tuple(CANDIDATES[args.student])
    names = chosen(args.candidates or ",".join(known), known, "candidate")
    data = load_data(args.data)
    use_backend()
    if args.action == "measure":
        print(table(measure(data, names, args.epochs, args.seeds, recipe_of)))
        return
    rows = [Variant(name, partial(link, name, args.epochs, recipe_of)) for name in names]
    run_missing(rows, args.seeds, data)


if __name__ == "__main__":
    sys.exit(exit_code(main))
