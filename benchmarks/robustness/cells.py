"""What each model answers to each corruption and strength; finished cells are kept on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge._version import __version__
from bloodedge.benchmarks.robustness.corruptions import Corruption, corrupted
from bloodedge.console import say
from bloodedge.data.dataset import Dataset, Labels
from bloodedge.deploy.predict import LoadedModel
from bloodedge.errors import DataError
from bloodedge.files import read_json, remove_partial_files, write_json

CLEAN = "clean"
Predicted = NDArray[np.int64]


@dataclass(frozen=True)
class Condition:
    """The images as they are (`corruption` None, `strength` 0), or a corruption at a strength."""

    corruption: Corruption | None
    strength: int

    @property
    def name(self) -> str:
        """The corruption's name and the strength, such as `blur-3`; `clean`."""
        return f"{self.corruption.name}-{self.strength}" if self.corruption else CLEAN


@dataclass(frozen=True)
class Key:
    """What an answer depends on; a kept cell of another key is asked again."""

    model: str
    data: str
    condition: str
    value: float
    seed: int
    split: str
    version: str = __version__
    schema: str = "bloodedge-robustness-cell/1"


def conditions(corruptions: tuple[Corruption, ...], strengths: int) -> list[Condition]:
    """Return the clean images, then every corruption at the strengths 1 to `strengths`."""
    spoilt = [Condition(c, s) for c in corruptions for s in range(1, strengths + 1)]
    return [Condition(None, 0), *spoilt]


def answers(
    models: Mapping[str, LoadedModel],
    data: Dataset,
    wanted: list[Condition],
    folder: Path,
    *,
    split: str,
    seed: int,
    workers: int | None,
) -> Iterator[tuple[Condition, dict[str, Predicted]]]:
    """Yield each condition with every model's classes `(N,)`, and keep each in `folder` as a file.

    What is there from an earlier, interrupted attempt, for the same file and images, is read. A
    condition's images are made once for all models, and not at all when nothing is missing.

    Raises:
        ModelError: what a model gives are no probabilities.
        BloodedgeError: the folder cannot be written.
    """
    chosen = data[split]
    digests = {name: model.reference.sha256 for name, model in models.items()}
    for digest in digests.values():
        remove_partial_files(folder / split / digest[:16])
    for done, condition in enumerate(wanted, 1):
        c = condition.corruption
        value = c.value(condition.strength) if c else 0.0
        found: dict[str, Predicted] = {}
        images = None
        for name, model in models.items():
            key = Key(digests[name], data.fingerprint, condition.name, value, seed, split)
            path = folder / split / digests[name][:16] / f"{condition.name}.json"
            kept = read_cell(path, key, len(chosen), len(data.class_names))
            if kept is None:
                if images is None:
                    clean = chosen.images
                    images = corrupted(clean, c, condition.strength, seed) if c else clean
                kept = model.probabilities(images, workers).argmax(axis=1)
                write_json(path, {"key": asdict(key), "predicted": kept.tolist()})
            found[name] = kept
        say(f"{done}/{len(wanted)} {condition.name}: {_told(found, chosen.labels)}")
        yield condition, found


def read_cell(path: Path, key: Key, images: int, classes: int) -> Predicted | None:
    """Return the classes of a kept cell; None where there is none that is whole and of this key."""
    try:
        found: dict[str, Any] = read_json(path)
    except DataError:
        return None
    predicted = found.get("predicted")
    if found.get("key") != asdict(key) or not isinstance(predicted, list):
        return None
    whole = all(type(c) is int and 0 <= c < classes for c in predicted)
    if not whole or len(predicted) != images:
        return None
    return np.asarray(predicted, np.int64)


def _told(found: Mapping[str, Predicted], labels: Labels) -> str:
    shares = (f"{name} {100 * float((p == labels).mean()):.2f}" for name, p in found.items())
    return ", ".join(shares) + " %"
