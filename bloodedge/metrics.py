"""Classification metrics in NumPy, so that a bare GPU host needs nothing else.

Accuracy and AUC follow `medmnist.evaluator` (tests compare the two); the interval is Wilson's
score interval; the expected calibration error is Guo et al. 2017 with 15 equal-width bins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodedge.errors import ModelError

Floats = NDArray[np.float64]

# Of the normal distribution, 95 % on both sides.
_Z95 = 1.959964
# Of equal width, for the calibration error.
_BINS = 15
# Resamplings of a bootstrap.
_DRAWS = 10_000


def softmax(logits: ArrayLike) -> Floats:
    """Return the softmax over the last axis, in double precision."""
    z = np.asarray(logits, dtype=np.float64)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    result: Floats = e / e.sum(axis=-1, keepdims=True)
    return result


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927)."""
    if total == 0:
        return (0.0, 1.0)
    p, z = correct / total, _Z95
    scale = 1 / (1 + z * z / total)
    centre = (p + z * z / (2 * total)) * scale
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) * scale
    return (max(0.0, centre - half), min(1.0, centre + half))


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return the `(classes, classes)` counts, rows the truth, columns the prediction."""
    flat = np.asarray(truth, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(confusion: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return `(C,)` precision, recall and F1; 0 where a class was never predicted or seen.

    Args:
        confusion: `(C, C)` counts, rows the truth.
    """
    hits = np.diag(confusion).astype(np.float64)
    precision = hits / np.maximum(confusion.sum(axis=0), 1)
    recall = hits / np.maximum(confusion.sum(axis=1), 1)
    f1 = 2 * hits / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    return precision, recall, f1


def auc_one_vs_rest(truth: NDArray[np.int64], scores: Floats) -> float | None:
    """Return the mean over classes of the one-vs-rest AUC (MedMNIST's definition).

    Mann-Whitney with mid-ranks for ties. None if a class is absent, where it is not defined.

    Args:
        truth: `(N,)` class indices.
        scores: `(N, C)`, higher for the likelier class.
    """
    areas = []
    for c in range(scores.shape[1]):
        positive = truth == c
        n = int(positive.sum())
        m = len(truth) - n
        if n == 0 or m == 0:
            return None
        ranks = _mid_ranks(scores[:, c])
        areas.append((float(ranks[positive].sum()) - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas))


def _mid_ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse].astype(np.float64)
    return ranks


def expected_calibration_error(
    truth: NDArray[np.int64], p: Floats, *, sorted_by: Floats | None = None
) -> float:
    """Return the mean |accuracy - confidence| over equal-width confidence bins (Guo 2017).

    Args:
        truth: `(N,)` class indices.
        p: `(N, C)` probabilities.
        sorted_by: `(N, C)` other probabilities, whose confidence puts the images into bins.
    """
    confidence = p.max(axis=1)
    hit = (p.argmax(axis=1) == truth).astype(np.float64)
    sure = confidence if sorted_by is None else sorted_by.max(axis=1)
    bin_of = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bin_of, weights=hit - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / max(len(truth), 1))


def brier_score(truth: NDArray[np.int64], p: Floats) -> float:
    """Return the mean squared distance of probabilities from the truth, 0 to 2 (Brier 1950).

    Args:
        truth: `(N,)` class indices.
        p: `(N, C)` probabilities.
    """
    target = np.zeros_like(p)
    target[np.arange(len(truth)), truth] = 1.0
    return float(((p - target) ** 2).sum(axis=1).mean())


def mcnemar_exact(broken: int, mended: int) -> float:
    """Return the two-sided exact p-value of McNemar's test on discordant pairs.

    Args:
        broken: cases that only the first of two classifiers gets right.
        mended: cases that only the second gets right.
    """
    n = broken + mended
    ways = tail = 1
    for k in range(min(broken, mended)):
        # From C(n, k) to C(n, k + 1): computing each anew takes seconds for thousands of pairs.
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**n))


def paired_drop_interval(broken: int, mended: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a paired loss of accuracy (Agresti & Min, Stat. Med. 2005).

    Wald's interval with half an image more in each cell of the paired table. A bootstrap would
    give no width at all where no image changed, and too little where few did.

    Args:
        broken: images that only the parent gets right.
        mended: images that only the child gets right.
        total: all images.
    """
    if total == 0:
        return (0.0, 0.0)
    b, m, n = broken + 0.5, mended + 0.5, total + 2
    loss = (b - m) / n
    reach = _Z95 * math.sqrt(((b + m) / n - loss**2) / n)
    return (max(-1.0, loss - reach), min(1.0, loss + reach))


def mean_interval(values: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean over images.

    Resampling images with replacement draws how often each distinct value occurs from a
    multinomial distribution, which is what is drawn here: few values make it cheap.

    Args:
        values: `(N,)` whole numbers, one for each image.
    """
    if len(values) == 0:
        return (0.0, 0.0)
    distinct, counts = np.unique(values, return_counts=True)
    # Always the same draws, so that a report made again is the same.
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), _DRAWS)
    low, high = np.percentile(drawn @ distinct / len(values), [2.5, 97.5])
    return (float(low), float(high))


def classification_metrics(truth: ArrayLike, probabilities: ArrayLike) -> dict[str, Any]:
    """Return every figure reported for a classifier, ready for JSON.

    Args:
        truth: `(N,)` or `(N, 1)` class indices.
        probabilities: `(N, C)` softmax outputs.

    Raises:
        ModelError: a probability is NaN or infinite.
    """
    y = np.asarray(truth, dtype=np.int64).reshape(-1)
    p = np.asarray(probabilities, dtype=np.float64)
    if wrong := int((~np.isfinite(p)).any(axis=1).sum()):
        raise ModelError(
            f"the model answers {wrong} of {len(p)} images with what is no finite number",
            expected="probabilities",
            fix="train it again at a lower rate, or export it again",
        )
    matrix = confusion_matrix(y, p.argmax(axis=1), p.shape[1])
    correct = int(np.trace(matrix))
    precision, recall, f1 = precision_recall_f1(matrix)
    # As scikit-learn: a class that is neither there nor predicted has no F1.
    seen = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return {
        "images": len(y),
        "accuracy": correct / max(len(y), 1),
        "accuracy_95ci": list(wilson_interval(correct, len(y))),
        "auc": auc_one_vs_rest(y, p),
        "macro_f1": float(f1[seen].mean()) if seen.any() else 0.0,
        "ece": expected_calibration_error(y, p),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "confusion": matrix.tolist(),
    }
