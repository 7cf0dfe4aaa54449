"""The images whose class a child changed: a table of them, and a sheet to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Dataset
from bloodedge.deploy.gallery import MAX_CELLS, contact_sheet
from bloodedge.files import write_csv
from bloodedge.metrics import Floats

# What the names of both files begin with.
CHANGED = "changed"
_NAME = 16


@dataclass(frozen=True)
class Answers:
    """What two models say of the same images of a split.

    Attributes:
        split: the split's name.
        index: `(N,)`, which of its images.
        before: `(N, C)`, the parent's probabilities.
        after: `(N, C)`, the child's.
    """

    split: str
    index: NDArray[np.int64]
    before: Floats
    after: Floats

    @property
    def changed(self) -> NDArray[np.intp]:
        """`(M,)`: the rows of `index` in which the most probable class is another."""
        return np.flatnonzero(self.before.argmax(axis=1) != self.after.argmax(axis=1))


def write_changed(folder: Path, stem: str, data: Dataset, answers: Answers) -> None:
    """Write `stem.csv`, a line for each image that changed, and `stem.png`, which shows them.

    A line holds the index in the split, the truth, both classes and their probabilities. There is
    no picture when nothing changed.

    Raises:
        BloodedgeError: the folder cannot be written.
    """
    names, split = data.class_names, data[answers.split]
    lines, captions = [], []
    for row in answers.changed:
        image = int(answers.index[row])
        truth = names[split.labels[image]]
        was, now = int(answers.before[row].argmax()), int(answers.after[row].argmax())
        sure = f"{answers.before[row, was]:.4f}", f"{answers.after[row, now]:.4f}"
        lines.append((image, truth, names[was], sure[0], names[now], sure[1]))
        captions.append(
            f"{_short(truth)}\n{_short(names[was])} {sure[0][:4]} >\n{_short(names[now])} "
            f"{sure[1][:4]}"
        )
    header = ("index", "truth", "parent", "parent_p", "child", "child_p")
    write_csv(folder / f"{stem}.csv", header, lines)
    if not lines:
        return
    note = "synthetic data, " if data.synthetic else ""
    title = (
        f"{note}{answers.split}: truth, parent > child; {len(lines)} of {len(answers.index)} "
        "changed"
    )
    if len(lines) > MAX_CELLS:
        title += f", the first {MAX_CELLS} shown"
    shown = [split.images[line[0]] for line in lines]
    contact_sheet(shown, captions, title, folder / f"{stem}.png")


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}."
