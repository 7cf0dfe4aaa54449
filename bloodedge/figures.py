"""Figures as PNG files: learning curves and confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MAX_NAME = 40


def can_draw() -> bool:
    """Return whether matplotlib is installed; a bare GPU host may train without it."""
    return util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A character that no font here has is drawn as a box, which tells it all.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(temporary, format=path.suffix[1:])


def learning_curves(history: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Draw loss and accuracy of train and val over the epochs."""
    figure = new_figure(9, 3.6)
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for split in ("train", "val"):
            axis.plot(epochs, [row[f"{split}_{name}"] for row in history], label=split)
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def confusion_figure(
    matrix: NDArray[np.int64], class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draw a confusion matrix: colour by the share of the true class, numbers are images.

    Args:
        matrix: `(C, C)` counts, rows the truth, columns the prediction.
        class_names: C names.
        title: above it.
        path: the PNG file to write.

    Raises:
        BloodedgeError: the file cannot be written.
    """
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_short(name) for name in class_names]
    side = 2.5 + 0.55 * len(names) + 0.07 * max(0, max(map(len, names)) - 20)
    figure = new_figure(side + 0.8, side)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    _number_cells(axis, counts, share)
    ticks = range(len(class_names))
    axis.set_xticks(ticks, names, rotation=45, ha="right", parse_math=False)
    axis.set_yticks(ticks, names, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(title, parse_math=False)
    figure.colorbar(image, label="share of the true class")
    save_figure(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _number_cells(axis: Any, counts: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    if len(counts) > 20:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
