"""The errors that remain: every test image that any of several models misreads.

    python -m bloodedge.benchmarks.errors --data D MODEL... [--size S] [--out FOLDER]

MODEL is what `bloodedge evaluate` takes. For each image that at least one model misreads: the
truth, what each model says with its probability, and how many agree on one other class. An image is
a **likely label error** when there are at least two models, all of them say the same class, it is
not the label, and each gives it a probability of at least 0.9. Nobody has looked at it: models that
learnt from the same images can also be wrong together.

Writes `errors.json`, `.csv` and `.md`, which hold no pixels, and `gallery-01.png` and on, which
show the cells and are not to be published, into FOLDER, by default `errors` among the runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.errors import COMMAND, STEM
from bloodedge.runs import runs_root


def main(words: Sequence[str] | None = None) -> None:
    """Find the errors and write the tables and the gallery."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as for `bloodedge evaluate`")
    parser.add_argument("--data", required=True, help="as for `bloodedge train`")
    parser.add_argument("--size", type=int, help="side of the images, as for `bloodedge train`")
    parser.add_argument("--workers", type=int, help="TFLite interpreters side by side [all cores]")
    parser.add_argument("--out", type=Path, help="[errors, among the runs]")
    args = parser.parse_args(words)
    if args.workers is not None and args.workers < 1:
        parser.error("--workers must be at least 1")
    from bloodedge.benchmarks.errors.stage import find_and_write

    find_and_write(args.models, args.data, args.out or runs_root() / STEM, args.workers, args.size)


if __name__ == "__main__":
    sys.exit(exit_code(main))
