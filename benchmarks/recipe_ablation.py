"""What each choice of the strong recipe brings: one change at a time, on val.

    python -m bloodedge.benchmarks.recipe_ablation --data D [--model cnn_se] [--epochs 12]
        [--seeds 3] [--variants a,b] [--show]

Every variant is an ordinary `train` run, so that what was interrupted continues and what is there
is not trained again; the table holds what has been run. Test is not read. Beside the accuracy of
the epoch that val chose, the table gives the loss over the last three epochs, which is less noisy.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from bloodedge.backend import use_backend
from bloodedge.data.sources import load_data
from bloodedge.errors import BloodedgeError, ConfigError
from bloodedge.runs import is_finished, load_run, runs_root
from bloodedge.train.config import FitConfig
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train

_LAST_EPOCHS = 3
# What differs from the strong recipe; `augment` entries change its augmentation.
VARIANTS: dict[str, dict[str, Any]] = {
    "strong": {},
    "no-turns": {"augment": {"views": 1}},
    "no-shift": {"augment": {"shift": 0.0}},
    "no-colour": {"augment": {"brightness": 0.0, "colour": 0.0}},
    "colour-8": {"augment": {"brightness": 0.08, "colour": 0.08}},
    "scale-10": {"augment": {"scale": 0.1}},
    "stain-5": {"augment": {"stain": 0.05}},
    "mixup": {"augment": {"mixup": 0.2}},
    "cutmix": {"augment": {"cutmix": 1.0}},
    "smoothing": {"label_smoothing": 0.1},
    "ema": {"ema": 0.995},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    "balanced": {"balance": 0.5},
    "lr-2": {"learning_rate": 2e-3},
}


def variant_fit(model: str, variant: str, epochs: int, seed: int) -> FitConfig:
    """Return the strong recipe with one variant's changes."""
    base = fit_config("strong", model, epochs=epochs, seed=seed)
    changes = dict(VARIANTS[variant])
    augment = replace(base.augment, **changes.pop("augment", {}))
    return replace(base, augment=augment, **changes)


def run_name(model: str, variant: str, epochs: int, seed: int) -> str:
    """Return the name of a variant's run."""
    return f"ablation-{model}-{variant}-e{epochs}-s{seed}"


def scores(model: str, variant: str, epochs: int, seeds: int) -> list[tuple[float, float]]:
    """Return val accuracy in percent and the last epochs' val loss of the seeds that were run."""
    names = [run_name(model, variant, epochs, seed) for seed in range(seeds)]
    return [_score(runs_root() / name) for name in names if is_finished(name)]


def _score(folder: Path) -> tuple[float, float]:
    with (folder / "history.csv").open(newline="") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    accuracy = load_run(folder).manifest["metrics"]["val"]["accuracy"]
    return 100 * accuracy, mean(losses[-_LAST_EPOCHS:])


def table(model: str, variants: list[str], epochs: int, seeds: int) -> str:
    """Return the comparison as Markdown; differences are to the mean of `strong`."""
    base = [accuracy for accuracy, _ in scores(model, "strong", epochs, seeds)]
    lines = [
        "| variant | seeds | val accuracy, % | lowest to highest | against strong | val loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        found = scores(model, variant, epochs, seeds)
        if not found:
            lines.append(f"| {variant} | 0 | not run yet | | | |")
            continue
        accuracy, losses = zip(*found, strict=True)
        against = f"{mean(accuracy) - mean(base):+.2f}" if base else ""
        lines.append(
            f"| {variant} | {len(found)} | {mean(accuracy):.2f} | "
            f"{min(accuracy):.2f} to {max(accuracy):.2f} | {against} | {mean(losses):.4f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Train what is missing, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--model", default="cnn_se", help="[cnn_se]")
    parser.add_argument("--epochs", type=int, default=12, help="[12]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="[all]")
    parser.add_argument("--show", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    variants = args.variants.split(",")
    try:
        unknown = [name for name in variants if name not in VARIANTS]
        if unknown:
            raise ConfigError(f"no variant {', '.join(unknown)}", expected=", ".join(VARIANTS))
        if not args.show:
            data = load_data(args.data)
            use_backend()
            for seed in range(args.seeds):
                for variant in variants:
                    name = run_name(args.model, variant, args.epochs, seed)
                    fit = variant_fit(args.model, variant, args.epochs, seed)
                    if not is_finished(name):
                        train(TrainConfig(args.model, fit, name, resume=True), data)
        print(table(args.model, variants, args.epochs, args.seeds))
    except BloodedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
