"""One entry point for every data source that `--data` can name."""

from __future__ import annotations

from pathlib import Path

from bloodedge.data.dataset import Dataset
from bloodedge.data.npz import load_npz
from bloodedge.errors import DataError


def load_data(reference: str, *, size: int | None = None) -> Dataset:
    """Load the data set that `--data` names."""
    path = Path(reference)
    if path.suffix == ".npz":
        return load_npz(path)
    raise DataError(f"unknown data {reference!r}")
