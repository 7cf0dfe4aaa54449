"""What each way to distill brings over the same student alone, trained as long, on val.

    python -m bloodedge.benchmarks.distill_methods --data D --teacher T [--teacher T2]
        [--student cnn_se] [--epochs 20] [--seeds 3] [--methods alone,kd,...] [--show]

`patient` runs the teachers on every image of every epoch: without a GPU leave it out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import partial

from bloodedge.benchmarks.comparison import Variant, chosen, compare, exit_code
from bloodedge.compress.chain.link import Link
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.targets import METHODS, KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.sources import load_data
from bloodedge.train.recipes import fit_config
from bloodedge.train.stage import TrainConfig, train

ALONE = "alone"
# How much the teacher's answers weigh against the labels: mostly, or, in `kd-half`, as much.
_ALPHAS = {"kd": 0.9, "kd-half": 0.5}
KNOWN = (ALONE, "kd", "kd-half", "dkd", "dist", "feature", "patient")


@dataclass(frozen=True)
class Setting:
    """What all methods share."""

    teachers: tuple[str, ...]
    student: str
    epochs: int

    def run_name(self, method: str, seed: int) -> str:
        """Return the name of a method's run."""
        by = "" if method == ALONE else "-" + "+".join(self.teachers)
        return f"distill-{self.student}{by}-{method}-e{self.epochs}-s{seed}"

    def teaching(self, method: str) -> TeachingConfig:
        """Return who teaches, and how, under a method."""
        loss = method.removesuffix("-half")
        alpha = _ALPHAS.get(method, METHODS[loss])
        return TeachingConfig(
            self.teachers, KdConfig(alpha=alpha, method=loss), live=method == "patient"
        )

    def link(self, method: str, seed: int) -> Link:
        """Return the settings of the student of one seed by one method, and what trains it."""
        name = self.run_name(method, seed)
        fit = fit_config("strong", self.student, epochs=self.epochs, seed=seed)
        if method == ALONE:
            return Link(method, TrainConfig(self.student, fit, name), train)
        if method == "patient":
            fit = replace(fit, augment=replace(fit.augment, mixup=1.0))
        teaching = self.teaching(method)
        config = DistillConfig(teaching, self.student, fit, name)
        return Link(method, config, distill, teaching=teaching)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--teacher", action="append", required=True, help="a run or zoo model")
    parser.add_argument("--student", default="cnn_se", help="[cnn_se]")
    parser.add_argument("--epochs", type=int, default=20, help="[20]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--methods", default=",".join(KNOWN), help="[all]")
    parser.add_argument("--show", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    methods = chosen(args.methods, KNOWN, "method")
    setting = Setting(tuple(args.teacher), args.student, args.epochs)
    data = None if args.show else load_data(args.data)
    rows = [Variant(m, partial(setting.link, m)) for m in methods]
    compare(rows, args.seeds, ALONE, data)


if __name__ == "__main__":
    sys.exit(exit_code(main))
