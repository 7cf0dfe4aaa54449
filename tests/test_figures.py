"""Figures show names of classes and data as they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodedge.figures import confusion_figure, learning_curves

# Between dollar signs matplotlib would read a formula, and this is none.
NAME = r"a$x_$ \frac"


@pytest.mark.filterwarnings("error")
def test_long_names_and_those_that_no_font_has_leave_room(tmp_path: Path) -> None:
    confusion_figure(np.eye(2, dtype=np.int64), ("n" * 300, "\U0001fa78"), "t", tmp_path / "m.png")
    assert (tmp_path / "m.png").exists()


def test_names_are_no_formulas(tmp_path: Path) -> None:
    matrix = np.eye(2, dtype=np.int64)
    confusion_figure(matrix, (NAME, "b"), NAME, tmp_path / "confusion.png")
    row = {"epoch": 1.0, "train_loss": 1.0, "val_loss": 1.0}
    row |= {"train_accuracy": 0.5, "val_accuracy": 0.5}
    learning_curves([row], NAME, tmp_path / "curves.png")
    for name in ("confusion.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
