"""What each choice of the strong recipe brings: one change at a time, on val.

python -m bloodedge.benchmarks.recipe_ablation --data D [--model cnn_se] [--epochs 12]
[--seeds 3] [--variants a,b] [--show]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from bloodedge.benchmarks.comparison import Variant, chosen, compare, exit_code
from bloodedge.compress.chain.link import Link
from bloodedge.data.sources import load_data
from bloodedge.train.config import FitConfig
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train

# What differs from the strong recipe; `augment` entries change its augmentation, `rate` multiplies
# its learning rate.
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
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-2},
    "muon": {"optimizer": "muon", "learning_rate": 4e-2},
    "muon-half": {"optimizer": "muon", "learning_rate": 2e-2},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    "balanced": {"balance": 0.5},
    "lr-2": {"learning_rate": 2e-3},
    "lr-half": {"rate": 0.5},
    "lr-double": {"rate": 2.0},
    "no-warmup": {"warmup": 0.0},
    "constant": {"final_rate": 1.0},
    "to-a-tenth": {"final_rate": 0.1},
    "no-decay": {"weight_decay": 0.0},
    "bfloat16": {"precision": "bfloat16"},
}


def variant_fit(model: str, variant: str, epochs: int, seed: int) -> FitConfig:
    """Return the strong recipe with one variant's changes."""
    base = fit_config("strong", model, epochs=epochs, seed=seed)
    changes = dict(VARIANTS[variant])
    augment = replace(base.augment, **changes.pop("augment", {}))
    rate = base.learning_rate * changes.pop("rate", 1.0)
    return replace(base, **{"augment": augment, "learning_rate": rate, **changes})


def link(model: str, variant: str, epochs: int, seed: int) -> Link:
    """Return the settings of a variant's run, and what trains it."""
    fit = variant_fit(model, variant, epochs, seed)
    name = f"ablation-{model}-{variant}-e{epochs}-s{seed}"
    return Link(variant, TrainConfig(model, fit, name), train)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--model", default="cnn_se", help="[cnn_se]")
    parser.add_argument("--epochs", type=int, default=12, help="[12]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="[all]")
    parser.add_argument("--show", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    names = chosen(args.variants, tuple(VARIANTS), "variant")
    data = None if args.show else load_data(args.data)
    rows = [Variant(name, partial(link, args.model, name, args.epochs)) for name in names]
    compare(rows, args.seeds, "strong", data)


if __name__ == "__main__":
    sys.exit(exit_code(main))
