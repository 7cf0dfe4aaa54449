"""What each step of a recipe left: size, work and accuracy, from the source to the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bloodedge.compress.chain.link import Link
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.figures import weight_sizes
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ModelError
from bloodedge.metrics import wilson_interval
from bloodedge.references import ModelReference, find_model
from bloodedge.runs import Run
from bloodedge.train.cost import count_macs
from bloodedge.train.loop import predict_logits
from bloodedge.train.restore import restore


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        step: as the recipe writes it; `source` for what it began with.
        name: the run or model.
        bytes: of the file, or for a Keras model of its weights in float32.
        gzip_bytes: the same, compressed.
        is_file: which of the two.
        macs: multiply-accumulates for one image; None where they cannot be counted.
        accuracy: on val, of int8 arithmetic where that was trained.
        interval: of 95 %.
        failed: whether a file failed its gate.
    """

    step: str
    name: str
    bytes: int
    gzip_bytes: int
    is_file: bool
    macs: int | None
    accuracy: float
    interval: tuple[float, float]
    failed: bool = False


def rows(
    config: RecipeConfig, links: Sequence[Link], runs: Sequence[Run], data: Dataset
) -> list[Row]:
    """Return a row for the source and for every step of a finished chain."""
    source = find_model(config.source)
    known = {config.source: _of_source(source, data)}
    found = [known[config.source]]
    for link, run in zip(links, runs, strict=True):
        variants = run.manifest["metrics"].get("variants")
        if variants:
            row = _of_file(link, variants[link.step], known[link.parent])
        else:
            metrics = run.manifest["metrics"]
            row = _of_model(link.step, find_model(link.name), metrics.get("val_int8"), metrics)
        known[link.name] = row
        found.append(row)
    return found


def _of_source(source: ModelReference, data: Dataset) -> Row:
    manifest = source.manifest
    metrics = manifest.get("metrics", {})
    same = manifest.get("data", {}).get("fingerprint") == data.fingerprint
    if same and "accuracy_95ci" in metrics.get("val", {}):
        return _of_model("source", source, None, metrics)
    val = data["val"]
    logits = predict_logits(restore(source), val.images, label="val of the source")
    right = int((logits.argmax(axis=1) == val.labels).sum())
    measured = {
        "accuracy": right / len(val),
        "accuracy_95ci": wilson_interval(right, len(val)),
    }
    return _of_model("source", source, None, {"val": measured})


def _of_model(
    step: str, reference: ModelReference, int8: dict[str, Any] | None, metrics: dict[str, Any]
) -> Row:
    model = restore(reference)
    size = weight_sizes(model)["float32"]
    val = int8 or metrics["val"]
    low, high = val["accuracy_95ci"]
    return Row(
        step,
        reference.name,
        size["bytes"],
        size["gzip_bytes"],
        False,
        _macs(model),
        float(val["accuracy"]),
        (low, high),
    )


def _macs(model: Any) -> int | None:
    try:
        return count_macs(model)
    except ModelError:
        return None


def _of_file(link: Link, figures: dict[str, Any], parent: Row) -> Row:
    images, accuracy = int(figures["images"]), float(figures["accuracy_val"])
    return Row(
        link.step,
        link.name,
        int(figures["bytes"]),
        int(figures["gzip_bytes"]),
        True,
        parent.macs,
        accuracy,
        wilson_interval(round(accuracy * images), images),
        bool(figures["failed"]),
    )
