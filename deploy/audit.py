"""How much accuracy depends on which images calibrate: one conversion over several draws."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Split
from bloodedge.deploy.interpreter import predict_parallel

DRAWS = 5
# Variants that depend on calibration images.
CALIBRATED = ("int8", "mixed", "int16x8")


def audit(
    make: Callable[[NDArray[np.uint8]], bytes],
    train: Split,
    val: Split,
    *,
    per_class: int,
    seed: int,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Return accuracy on val over several class-balanced draws of calibration images.

    Args:
        make: converts with the calibration images it is given, to a .tflite.
        train: where they are drawn from.
        val: what is classified.
        per_class: images of each class in a draw. If no class has more, every draw is all of
            train, and one is taken.
        seed: the first draw's; the others count up.
        draws: how many.

    Returns:
        `draws` with `seed` and `accuracy_val` of each, their `mean`, `std` (of the draws, not of
        the mean; None for a single one), `min` and `max`.
    """
    if len(calibration_indices(train.labels, per_class, seed)) == len(train):
        draws = 1
        say(
            "audit: every draw is all of train, so they cannot differ; give a smaller "
            "--calibration-per-class"
        )
    rows = []
    for number in range(seed, seed + draws):
        chosen = calibration_indices(train.labels, per_class, number)
        accuracy = _accuracy(make(train.images[chosen]), val)
        rows.append({"seed": number, "accuracy_val": accuracy})
        say(f"audit: draw {number}, val accuracy {100 * accuracy:.2f} %")
    return summary(rows)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the draws with mean, standard deviation, least and largest accuracy."""
    found = [float(row["accuracy_val"]) for row in rows]
    return {
        "draws": rows,
        "mean": float(np.mean(found)),
        "std": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        "min": min(found),
        "max": max(found),
    }


def _accuracy(content: bytes, val: Split) -> float:
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        path = Path(folder) / "draw.tflite"
        path.write_bytes(content)
        p = predict_parallel(path, val.images)
    return float((p.argmax(axis=1) == val.labels).mean())
