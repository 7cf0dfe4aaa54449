"""The three students: what each is worth in float, as int8, and as int8 trained for it.

    python -m bloodedge.benchmarks.students train --data D [--models cnn_se,...] [--seeds 3]
    python -m bloodedge.benchmarks.students finish --data D [--models cnn_se,...] [--seeds 3]
    python -m bloodedge.benchmarks.students show [--models cnn_se,...] [--seeds 3]

`train` trains each seed and fine-tunes it for int8, on any backend, continuing what was
interrupted. `finish` needs TensorFlow: it exports, and evaluates each file once on test. `show`
prints the table of what is there, as Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import Variant, chosen, exit_code, run_missing
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.data.dataset import Dataset
from bloodedge.data.sources import load_data
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.references import find_models
from bloodedge.runs import is_finished, load_run, runs_root
from bloodedge.train.models.cnn_se import PLANS
from bloodedge.train.recipes import fit_config, qat_tuning
from bloodedge.train.stage import TrainConfig, train

EPOCHS = 100
QAT, TFLITE = "-qat", "-tflite"
# The run that each file comes from, by what follows the name of the run in float.
FILES = {"float32": ("", "float32"), "int8": ("", "int8"), "int8, QAT": (QAT, "int8")}


def run_name(model: str, seed: int) -> str:
    """Return the name of the run in float."""
    return f"{model}-s{seed}"


def rows(models: list[str], epochs: int, data: Dataset) -> list[Variant]:
    """Return what is to be trained: each model, then each fine-tuned for int8."""

    def in_float(model: str, seed: int) -> object:
        fit = fit_config("strong", model, epochs=epochs, seed=seed)
        return train(TrainConfig(model, fit, run_name(model, seed), resume=True), data)

    def for_int8(model: str, seed: int) -> object:
        parent = run_name(model, seed)
        return quantize(QatConfig(parent, qat_tuning(seed=seed), parent + QAT, resume=True), data)

    def named(model: str, end: str, seed: int) -> str:
        return run_name(model, seed) + end

    return [
        Variant(model + end, partial(named, model, end), partial(make, model))
        for end, make in (("", in_float), (QAT, for_int8))
        for model in models
    ]


def finish(models: list[str], seeds: int, data: Dataset) -> None:
    """Export what is trained, and evaluate on test what has not been."""
    for model in models:
        for seed in range(seeds):
            for end, variants in (("", ("float32", "int8")), (QAT, ("int8",))):
                parent = run_name(model, seed) + end
                if is_finished(parent):
                    _finish(parent, variants, data)


def _finish(parent: str, variants: tuple[str, ...], data: Dataset) -> None:
    if not is_finished(parent + TFLITE):
        export(ExportConfig(parent, parent + TFLITE, variants), data)
    for reference in find_models(parent + TFLITE):
        config = EvaluateConfig(reference)
        if not is_finished(config.resolved()[1]):
            evaluate(config, data)


@dataclass(frozen=True)
class Score:
    """One file: bytes raw and compressed, and accuracy in percent on val and test."""

    size: int
    gzip: int
    val: float
    test: float
    worst: float


def scores(model: str, kind: str, seeds: int) -> Iterator[Score]:
    """Yield the seeds' files that are finished."""
    end, variant = FILES[kind]
    for seed in range(seeds):
        parent = run_name(model, seed) + end
        tested = f"{parent}-{variant}-test"
        if not (is_finished(parent + TFLITE) and is_finished(tested)):
            continue
        made: dict[str, Any] = _metrics(parent + TFLITE)["variants"][variant]
        test = _metrics(tested)["test"]
        yield Score(
            made["bytes"],
            made["gzip_bytes"],
            100 * made["accuracy_val"],
            100 * test["accuracy"],
            100 * min(test["recall"]),
        )


def _metrics(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_run(runs_root() / name).manifest["metrics"]
    return found


def table(models: list[str], seeds: int) -> str:
    """Return what is there as Markdown: means over seeds, test with its standard deviation."""
    lines = [
        "| model | file | seeds | KB | KB gzip | val, % | test, % | against float32 "
        "| worst class, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        real = list(scores(model, "float32", seeds))
        for kind in FILES:
            found = list(scores(model, kind, seeds))
            lines.append(_line(model, kind, found, real))
    return "\n".join(lines)


def _line(model: str, kind: str, found: list[Score], real: list[Score]) -> str:
    if not found:
        return f"| `{model}` | {kind} | 0 | not run yet | | | | | |"

    def of(figure: Callable[[Score], float], some: list[Score]) -> float:
        return mean(map(figure, some))

    spread = f" ± {stdev(s.test for s in found):.2f}" if len(found) > 1 else ""
    against = ""
    if kind != "float32" and len(found) == len(real):
        against = f"{of(lambda s: s.test, found) - of(lambda s: s.test, real):+.2f}"
    return (
        f"| `{model}` | {kind} | {len(found)} | {of(lambda s: s.size, found) / 1000:.1f} | "
        f"{of(lambda s: s.gzip, found) / 1000:.1f} | {of(lambda s: s.val, found):.2f} | "
        f"{of(lambda s: s.test, found):.2f}{spread} | {against} | "
        f"{min(s.worst for s in found):.1f} |"
    )


def main() -> None:
    """Train, finish or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("train", "finish", "show"))
    parser.add_argument("--data", help="as for `bloodedge train`")
    parser.add_argument("--models", default=",".join(PLANS), help="[all three]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"[{EPOCHS}]")
    args = parser.parse_args()
    models = chosen(args.models, tuple(PLANS), "student")
    if args.action != "show":
        if not args.data:
            parser.error("--data is needed")
        data = load_data(args.data)
        use_backend()
        if args.action == "train":
            run_missing(rows(models, args.epochs, data), args.seeds)
        else:
            finish(models, args.seeds, data)
    print(table(models, args.seeds))


if __name__ == "__main__":
    sys.exit(exit_code(main))
