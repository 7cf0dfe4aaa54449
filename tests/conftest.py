"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bloodedge.data.dataset import Dataset, Split

# A first call may compile or import; the suite also runs on busy machines.
settings.register_profile("bloodedge", deadline=None)
settings.load_profile("bloodedge")


@pytest.fixture(autouse=True)
def isolated_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a runs folder of its own, and none of the caller's settings."""
    runs = tmp_path / "runs"
    monkeypatch.setenv("BLOODEDGE_RUNS", str(runs))
    monkeypatch.delenv("BLOODEDGE_DATA", raising=False)
    monkeypatch.delenv("BLOODEDGE_ZOO", raising=False)
    return runs


def colour_split(per_class: int, seed: int, *, classes: int = 3, size: int = 16) -> Split:
    """Return images whose class is their brightest channel, with noise: easily learnt."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class)).astype(np.int64)
    images = rng.integers(0, 120, (len(labels), size, size, 3)).astype(np.uint8)
    images[np.arange(len(labels)), :, :, labels] += 100
    return Split(images, labels)


@pytest.fixture(scope="session")
def colours() -> Dataset:
    """Three classes told apart by colour, 16x16 pixels."""
    splits = {
        "train": colour_split(64, 1),
        "val": colour_split(20, 2),
        "test": colour_split(20, 3),
    }
    return Dataset(
        "colours", "synthetic", "synthetic colours", ("red", "green", "blue"), splits, {}
    )
