"""What SE and CBAM bring over no attention at all: the same net with each, on val.

    python -m bloodedge.benchmarks.attention --data D [--model cnn_se] [--epochs 24] [--seeds 3]
        [--show]

The seeds are the same for all three.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from bloodedge.benchmarks.comparison import Variant, compare, exit_code
from bloodedge.compress.chain.link import Link
from bloodedge.data.sources import load_data
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train

NONE = "none"
KINDS = (NONE, "se", "cbam")


def link(model: str, kind: str, epochs: int, seed: int) -> Link:
    """Return the settings of a seed's run, and what trains it."""
    fit = fit_config("strong", model, epochs=epochs, seed=seed)
    name = f"attention-{model}-{kind}-e{epochs}-s{seed}"
    return Link(kind, TrainConfig(model, fit, name, attention=kind), train)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--model", default="cnn_se", help="one that takes attention [cnn_se]")
    parser.add_argument("--epochs", type=int, default=24, help="[24]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--show", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    data = None if args.show else load_data(args.data)
    rows = [Variant(kind, partial(link, args.model, kind, args.epochs)) for kind in KINDS]
    compare(rows, args.seeds, NONE, data)


if __name__ == "__main__":
    sys.exit(exit_code(main))
