"""The models are asked about test, and every file is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.errors import COMMAND, STEM
from bloodedge.benchmarks.errors.found import find_errors, pairs
from bloodedge.benchmarks.errors.text import HEADER, draw_gallery, render, table_rows
from bloodedge.benchmarks.open_models import open_models
from bloodedge.benchmarks.recorded import record
from bloodedge.console import say
from bloodedge.data.sources import load_data
from bloodedge.deploy.evaluate import file_entry
from bloodedge.files import write_csv

SPLIT = "test"


def find_and_write(
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
