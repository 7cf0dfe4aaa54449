"""What the answers amount to: means over strengths, drops, and paired differences of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.robustness.cells import CLEAN
from bloodedge.metrics import mean_interval

# Of every model and condition, which images `(N,)` were read right.
Hits = dict[str, dict[str, NDArray[np.bool_]]]
ALL = "all"


def accuracies(
    hits: Mapping[str, Mapping[str, NDArray[np.bool_]]], corruptions: Sequence[str], strengths: int
) -> dict[str, dict[str, list[int]]]:
    """Return how many images each model reads right: clean, and by corruption and strength."""
    return {
        model: {
            CLEAN: [int(own[CLEAN].sum())],
            **{c: [int(own[name].sum()) for name in _names([c], strengths)] for c in corruptions},
        }
        for model, own in hits.items()
    }


def summary(
    hits: Mapping[str, Mapping[str, NDArray[np.bool_]]], corruptions: Sequence[str], strengths: int
) -> list[dict[str, Any]]:
    """Return a row for each model and corruption, and one for all corruptions of each model.

    Accuracies are in 0..1. `drop` is the clean accuracy less the mean over strengths;
    `accuracy_difference` the mean less the first model's, `drop_difference` the drop less the first
    model's, both with the 95 % interval of a bootstrap over images: each image keeps the answers of
    both models to all strengths, so what they share does not widen it.
    """
    first = next(iter(hits))
    groups = {c: [c] for c in corruptions} | {ALL: list(corruptions)}
    return [
        _row(model, group, hits[model], hits[first], _names(inside, strengths))
        for group, inside in groups.items()
        for model in hits
    ]


def _names(corruptions: Sequence[str], strengths: int) -> list[str]:
    return [f"{c}-{s}" for c in corruptions for s in range(1, strengths + 1)]


def _row(
    model: str,
    group: str,
    own: Mapping[str, NDArray[np.bool_]],
    first: Mapping[str, NDArray[np.bool_]],
    names: Sequence[str],
) -> dict[str, Any]:
    shares = {name: float(own[name].mean()) for name in names}
    worst = min(shares, key=lambda name: shares[name])
    clean, mean = float(own[CLEAN].mean()), float(np.mean(list(shares.values())))
    # Counted in conditions, so that these are whole numbers.
    ahead = sum(own[n].astype(np.int64) - first[n] for n in names)
    behind = (own[CLEAN].astype(np.int64) - first[CLEAN]) * len(names) - ahead
    return {
        "model": model,
        "corruption": group,
        "clean": clean,
        "mean": mean,
        "worst": shares[worst],
        "worst_condition": worst,
        "drop": clean - mean,
        "accuracy_difference": float(np.mean(ahead)) / len(names),
        "accuracy_difference_95ci": _interval(ahead, len(names)),
        "drop_difference": float(np.mean(behind)) / len(names),
        "drop_difference_95ci": _interval(behind, len(names)),
    }


def _interval(values: Any, conditions: int) -> list[float]:
    low, high = mean_interval(np.asarray(values, np.int64))
    return [low / conditions, high / conditions]
