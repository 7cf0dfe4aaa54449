"""How a child's answers compare with its parent's on the same images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.metrics import (
    Floats,
    brier_score,
    expected_calibration_error,
    mcnemar_exact,
    paired_drop_interval,
)


@dataclass(frozen=True)
class Comparison:
    """The figures of one comparison; drops are the parent's figure less the child's.

    Attributes:
        images: how many were compared.
        agreement: share with the same most probable class.
        max_difference: largest difference of any probability.
        accuracy: the child's.
        parent_accuracy: the parent's.
        accuracy_drop_95ci: paired 95 % interval of the loss of accuracy.
        broken: images only the parent gets right.
        mended: images only the child gets right.
        mcnemar_p: two-sided exact p-value of the two being equally accurate.
        class_images: images of each class.
        recall: the child's, of each class.
        recall_drop: loss of recall of each class.
        recall_drop_95ci: its paired 95 % interval, for each class.
        ece: the child's expected calibration error.
        parent_ece: the parent's.
        ece_rise: by how much it rises if the parent's confidence puts the images into bins for
            both. So it is what the answers' change costs; of few images, those that only change
            their bin would make up most of the difference between the two above.
        brier: the child's Brier score.
        parent_brier: the parent's.
    """

    images: int
    agreement: float
    max_difference: float
    accuracy: float
    parent_accuracy: float
    accuracy_drop_95ci: tuple[float, float] = (0.0, 0.0)
    broken: int = 0
    mended: int = 0
    mcnemar_p: float = 1.0
    class_images: tuple[int, ...] = ()
    recall: tuple[float, ...] = ()
    recall_drop: tuple[float, ...] = ()
    recall_drop_95ci: tuple[tuple[float, float], ...] = ()
    ece: float = 0.0
    parent_ece: float = 0.0
    ece_rise: float = 0.0
    brier: float = 0.0
    parent_brier: float = 0.0

    @property
    def accuracy_drop(self) -> float:
        """The loss of accuracy, as a fraction."""
        return self.parent_accuracy - self.accuracy

    def figures(self) -> dict[str, Any]:
        """Return the figures for a manifest, named as here."""
        return asdict(self)


def compare(
    parent: Floats,
    child: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    tie: float = 0.0,
) -> Comparison:
    """Compare `(N, C)` probabilities of parent and child on images with labels `(N,)`.

    A class whose parent probability is within `tie` of the highest counts as agreement.
    """
    rows = np.arange(len(labels))
    choice, before = child.argmax(axis=1), parent.argmax(axis=1)
    same = choice == before
    if tie > 0.0:
        same = parent[rows, choice] >= parent.max(axis=1) - tie
    broken = (before == labels) & (choice != labels)
    mended = (before != labels) & (choice == labels)
    classes = range(parent.shape[1])
    right = [int(((choice == labels) & (labels == c)).sum()) for c in classes]
    counts = [_pairs(broken, mended, labels == c) for c in classes]
    lost, won = int(broken.sum()), int(mended.sum())
    wide = child.astype(np.float64)
    ece = expected_calibration_error(labels, parent)
    return Comparison(
        images=len(labels),
        agreement=float(same.mean()),
        max_difference=float(np.abs(parent - child).max()),
        accuracy=float((choice == labels).mean()),
        parent_accuracy=float((before == labels).mean()),
        accuracy_drop_95ci=paired_drop_interval(lost, won, len(labels)),
        broken=lost,
        mended=won,
        mcnemar_p=mcnemar_exact(lost, won),
        class_images=tuple(n for _, _, n in counts),
        recall=tuple(r / max(n, 1) for r, (_, _, n) in zip(right, counts, strict=True)),
        recall_drop=tuple((b - m) / max(n, 1) for b, m, n in counts),
        recall_drop_95ci=tuple(paired_drop_interval(b, m, n) for b, m, n in counts),
        ece=expected_calibration_error(labels, wide),
        parent_ece=ece,
        ece_rise=expected_calibration_error(labels, wide, sorted_by=parent) - ece,
        brier=brier_score(labels, wide),
        parent_brier=brier_score(labels, parent),
    )


def _pairs(
    broken: NDArray[np.bool_], mended: NDArray[np.bool_], members: NDArray[np.bool_]
) -> tuple[int, int, int]:
    """Return a class's images that were broken, that were mended, and all."""
    return int((broken & members).sum()), int((mended & members).sum()), int(members.sum())
