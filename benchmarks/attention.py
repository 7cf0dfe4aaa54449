"""What SE and CBAM bring over no attention at all: the same net with each, on val.

    python -m bloodedge.benchmarks.attention --data D [--model cnn_se] [--epochs 24] [--seeds 3]
        [--show]

The seeds are the same for all three, so that each difference is one of pairs; its 95 % interval is
Student's over the seeds.
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from statistics import mean, stdev

from bloodedge.benchmarks.comparison import Variant, compare, exit_code
from bloodedge.data.dataset import Dataset
from bloodedge.data.sources import load_data
from bloodedge.runs import is_finished, metrics_of
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train

NONE = "none"
KINDS = (NONE, "se", "cbam")
# Student's t of 97.5 %, by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def run_name(model: str, kind: str, epochs: int, seed: int) -> str:
    """Return the name of a seed's run."""
    return f"attention-{model}-{kind}-e{epochs}-s{seed}"


def _train(data: Dataset | None, model: str, kind: str, epochs: int, seed: int) -> object:
    fit = fit_config("strong", model, epochs=epochs, seed=seed)
    name = run_name(model, kind, epochs, seed)
    return data and train(TrainConfig(model, fit, name, attention=kind, resume=True), data)


def differences(model: str, kind: str, epochs: int, seeds: int) -> list[float]:
    """Return by how many points val is better than without attention, for seeds that have both."""

    def accuracy(name: str) -> float:
        return float(metrics_of(name)["val"]["accuracy"])

    pairs = [[run_name(model, k, epochs, seed) for k in (kind, NONE)] for seed in range(seeds)]
    done = [pair for pair in pairs if all(map(is_finished, pair))]
    return [100 * (accuracy(one) - accuracy(other)) for one, other in done]


def interval(values: list[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean, for 2 to 9 values.

    Raises:
        KeyError: for other counts.
    """
    reach = _STUDENT[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return mean(values) - reach, mean(values) + reach


def _line(kind: str, values: list[float]) -> str:
    if len(values) < 2:
        return f"{kind}: fewer than two seeds"
    low, high = interval(values)
    return f"{kind}: {mean(values):+.2f} points [{low:+.2f}, {high:+.2f}], {len(values)} seeds"


def main() -> None:
    """Train what is missing and print the table, then the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--model", default="cnn_se", help="one that takes attention [cnn_se]")
    parser.add_argument("--epochs", type=int, default=24, help="[24]")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 10), help="[3]")
    parser.add_argument("--show", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    data = None if args.show else load_data(args.data)
    rows = [
        Variant(
            kind,
            partial(run_name, args.model, kind, args.epochs),
            partial(_train, data, args.model, kind, args.epochs),
        )
        for kind in KINDS
    ]
    compare(rows, args.seeds, NONE, show=args.show)
    for kind in KINDS[1:]:
        print(_line(kind, differences(args.model, kind, args.epochs, args.seeds)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
