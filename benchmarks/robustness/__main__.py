"""Accuracy on spoilt images, of a teacher, its student and the compressed student alike.

    python -m bloodedge.benchmarks.robustness MODEL... --data D [--size S] [--split val]
        [--strengths 5] [--unseen] [--out FOLDER]

MODEL is what `bloodedge evaluate` takes. The first is what the others are compared with, image by
image. The corruptions and where their strengths are from: `corruptions.py` beside this file, and
`unseen.py`, those that no recipe trains with. Writes `robustness.json`, `.csv`, `.md` and `.png`
(`robustness-unseen`) into FOLDER, by default among the runs, and the answers into `cells` there:
the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.robustness import COMMAND, stem_of
from bloodedge.runs import runs_root


def main(words: Sequence[str] | None = None) -> None:
    """Ask every model about every condition and write the tables and the figure."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as for `bloodedge evaluate`")
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--size", type=int, help="side of the images, as for `bloodedge train`")
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="val, to choose between models"
    )
    parser.add_argument("--strengths", type=int, default=5, help="how many, from the weakest [5]")
    parser.add_argument(
        "--unseen", action="store_true", help="other corruptions, which no recipe trains with"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every random draw [0]")
    parser.add_argument("--workers", type=int, help="TFLite interpreters side by side [all cores]")
    parser.add_argument(
        "--out", type=Path, help="[robustness or robustness-unseen, among the runs]"
    )
    args = parser.parse_args(words)
    # What loads NumPy and models comes after the help.
    from bloodedge.benchmarks.robustness.stage import RobustnessConfig, robustness

    config = RobustnessConfig(
        tuple(args.models),
        args.data,
        args.out or runs_root() / stem_of(unseen=args.unseen),
        args.strengths,
        args.seed,
        args.workers,
        args.size,
        args.split,
        args.unseen,
    )
    robustness(config)


if __name__ == "__main__":
    sys.exit(exit_code(main))
