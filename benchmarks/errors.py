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
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.runs import runs_root

if TYPE_CHECKING:
    from typing import Any

STEM = "errors"
COMMAND = "python -m bloodedge.benchmarks.errors"
SPLIT = "test"


def errors(
    names: Sequence[str],
    reference: str,
    out: Path,
    workers: int | None,
    size: int | None = None,
) -> dict[str, Any]:
    """Ask the models about test, write every file, and return the recorded JSON.

    Args:
        names: the models.
        reference: the data, as for `--data`.
        out: the folder to write into.
        workers: TFLite interpreters side by side; None for one per core.
        size: as for `--size`.

    Raises:
        ModelError: a model is unknown or damaged, or does not fit the data.
        DataError: the data is unknown or damaged.
        BloodedgeError: the folder cannot be written.
    """
    from bloodedge.benchmarks.errors_found import find_errors, pairs
    from bloodedge.benchmarks.errors_text import HEADER, draw_gallery, render, table_rows
    from bloodedge.benchmarks.open_models import open_models
    from bloodedge.benchmarks.recorded import record
    from bloodedge.console import say
    from bloodedge.data.sources import load_data
    from bloodedge.deploy.evaluate import file_entry
    from bloodedge.files import write_csv

    data = load_data(reference, size=size)
    chosen = [reference] if size is None else [reference, "--size", str(size)]
    models = open_models(names, data)
    said = {}
    for name, model in models.items():
        say(f"{name}: {len(data[SPLIT]):,} {SPLIT} images of {data.title}")
        said[name] = model.probabilities(data[SPLIT].images, workers)
    misread = find_errors(data[SPLIT].labels, said)
    found = {
        "schema": "bloodedge-errors/1",
        "command": f"{COMMAND} --data {shlex.join([*chosen, *names])}",
        "data": data.describe(),
        "split": SPLIT,
        "images": len(data[SPLIT]),
        "models": {name: file_entry(model.reference) for name, model in models.items()},
        "misread": [one.to_json() for one in misread],
        "pairs": pairs(misread),
    }
    write_csv(out / f"{STEM}.csv", (*HEADER, *_model_heads(said)), table_rows(found))
    record(out, STEM, found, render)
    for path in draw_gallery(found, data[SPLIT].images, out):
        say(f"{path}: shows cells; not to be published")
    return found


def _model_heads(said: Mapping[str, object]) -> list[str]:
    return [head for name in said for head in (name, f"{name} p")]


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
    errors(args.models, args.data, args.out or runs_root() / STEM, args.workers, args.size)


if __name__ == "__main__":
    sys.exit(exit_code(main))
