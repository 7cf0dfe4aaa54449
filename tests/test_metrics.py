from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bloodedge.errors import ModelError
from bloodedge.metrics import (
    auc_one_vs_rest,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    mean_interval,
    paired_drop_interval,
    precision_recall_f1,
    softmax,
    wilson_interval,
)

Case = tuple[NDArray[np.int64], NDArray[np.float64]]


def evaluator() -> Any:
    # It prints a notice about torch, which it does not need.
    with contextlib.redirect_stdout(io.StringIO()):
        import medmnist.evaluator
    return medmnist.evaluator


def case(seed: int, images: int = 300, classes: int = 8, steps: int | None = None) -> Case:
    """Labels with every class, and probabilities; `steps` rounds them, which makes ties."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    p = softmax(rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[y])
    return y, np.round(p * steps) / steps if steps else p


CASES = [
    pytest.param(case(0), id="eight classes"),
    pytest.param(case(1, steps=255), id="8-bit"),
    pytest.param(case(2, steps=3), id="many ties"),
    pytest.param(case(3, classes=3), id="three classes"),
    pytest.param(case(4, classes=2), id="two classes"),
    pytest.param(case(5, images=20), id="few images"),
]


# ---- the same as MedMNIST and scikit-learn ----


@pytest.mark.parametrize("sample", CASES)
def test_accuracy_and_auc_are_medmnists(sample: Case) -> None:
    y, p = sample
    ours = classification_metrics(y[:, None], p)
    # MedMNIST's labels are (N, 1); `binary-class` thresholds at 0.5, where argmax takes the first.
    assert ours["accuracy"] == evaluator().getACC(y[:, None], p, "multi-class")
    assert ours["auc"] == pytest.approx(
        evaluator().getAUC(y[:, None], p, "multi-class"), rel=0, abs=1e-12
    )


def test_two_classes_agree_with_medmnists_binary_task() -> None:
    y, p = case(6, classes=2)
    ours = classification_metrics(y, p)
    assert ours["accuracy"] == evaluator().getACC(y, p, "binary-class")
    assert ours["auc"] == pytest.approx(evaluator().getAUC(y, p, "binary-class"), abs=1e-12)


@pytest.mark.parametrize("sample", CASES)
def test_per_class_figures_are_scikit_learns(sample: Case) -> None:
    from sklearn import metrics

    y, p = sample
    ours = classification_metrics(y, p)
    labels = range(p.shape[1])
    theirs = metrics.precision_recall_fscore_support(
        y, p.argmax(axis=1), labels=labels, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), theirs, strict=False):
        assert ours[name] == pytest.approx(values, abs=1e-12)
    macro = metrics.f1_score(y, p.argmax(axis=1), labels=labels, average="macro", zero_division=0)
    assert ours["macro_f1"] == pytest.approx(macro, abs=1e-12)
    assert ours["confusion"] == metrics.confusion_matrix(y, p.argmax(axis=1)).tolist()


def test_a_class_that_is_neither_there_nor_predicted_leaves_macro_f1_alone() -> None:
    from sklearn import metrics

    y, p = case(6, classes=3)
    wide = np.hstack([p, np.zeros((len(p), 1))])
    theirs = metrics.f1_score(y, wide.argmax(axis=1), average="macro")
    assert classification_metrics(y, wide)["macro_f1"] == pytest.approx(theirs, abs=1e-12)


def test_a_class_that_is_never_seen_or_predicted_counts_as_zero() -> None:
    precision, recall, f1 = precision_recall_f1(confusion_matrix([0, 0, 1], [0, 1, 1], 3))
    assert precision.tolist() == [1.0, 0.5, 0.0]
    assert recall.tolist() == [0.5, 1.0, 0.0]
    assert f1.tolist() == pytest.approx([2 / 3, 2 / 3, 0.0])


# ---- AUC ----


@pytest.mark.parametrize(
    ("scores", "auc"),
    [
        ([0.1, 0.2, 0.8, 0.9], 1.0),
        ([0.9, 0.8, 0.2, 0.1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.5),
        # Three pairs out of four are right, and one is a tie: (2 + 0.5 + 1) / 4.
        ([0.1, 0.4, 0.4, 0.8], 0.875),
    ],
)
def test_auc_by_hand(scores: list[float], auc: float) -> None:
    y = np.array([0, 0, 1, 1])
    p = np.stack([1 - np.array(scores), np.array(scores)], axis=1)
    assert auc_one_vs_rest(y, p) == pytest.approx(auc)


def test_auc_is_not_defined_without_every_class() -> None:
    y, p = case(7)
    assert auc_one_vs_rest(np.where(y == 3, 2, y), p) is None
    assert auc_one_vs_rest(np.zeros(5, dtype=np.int64), np.full((5, 2), 0.5)) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2, 10]))
def test_auc_counts_pairs(seed: int, steps: int | None) -> None:
    y, p = case(seed, images=25, classes=3, steps=steps)
    areas = []
    for c in range(3):
        own, others = p[y == c, c][:, None], p[y != c, c][None, :]
        areas.append(((own > others) + 0.5 * (own == others)).mean())
    assert auc_one_vs_rest(y, p) == pytest.approx(np.mean(areas), abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_auc_depends_on_order_alone(seed: int) -> None:
    y, p = case(seed, images=25, classes=3)
    assert auc_one_vs_rest(y, p) == auc_one_vs_rest(y, p**3)


# ---- the interval ----


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_known_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_its_equation(counts: tuple[int, int]) -> None:
    k, n = counts
    p, z = k / n, 1.959964
    low, high = wilson_interval(k, n)
    assert 0 <= low <= p + 1e-12
    assert p - 1e-12 <= high <= 1
    # Both are where |p - bound| = z * sqrt(bound * (1 - bound) / n).
    for bound in (low, high):
        assert abs(p - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-6)
    mirrored = wilson_interval(n - k, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    # With no errors the bound is z^2 / (n + z^2).
    z2 = 1.959964**2
    assert wilson_interval(50, 50)[0] == pytest.approx(50 / (50 + z2))


# ---- calibration ----


@pytest.mark.parametrize(
    ("confidences", "hits", "ece"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        # One bin: half right at 0.9.
        ([0.9, 0.9], [True, False], 0.4),
        # Two bins, weighted by their images: (3 * |2/3 - 0.7| + 1 * |1 - 0.95|) / 4.
        ([0.7, 0.7, 0.7, 0.95], [True, True, False, True], (3 * abs(2 / 3 - 0.7) + 0.05) / 4),
        # Over- and under-confidence in different bins do not cancel.
        ([0.55, 0.95], [True, False], (0.45 + 0.95) / 2),
    ],
)
def test_ece_by_hand(confidences: list[float], hits: list[bool], ece: float) -> None:
    c = np.array(confidences)
    p = np.stack([c, 1 - c], axis=1)
    y = np.where(hits, 0, 1).astype(np.int64)
    assert expected_calibration_error(y, p) == pytest.approx(ece)


def test_ece_has_fifteen_bins() -> None:
    # Bins 9 and 10 of fifteen; one bin of ten.
    apart = np.array([[0.61, 0.39], [0.69, 0.31]])
    assert expected_calibration_error(np.array([0, 1]), apart) == pytest.approx((0.39 + 0.69) / 2)
    # Both in bin 10 of fifteen; two bins of ten, and of twenty.
    together = np.array([[0.68, 0.32], [0.72, 0.28]])
    assert expected_calibration_error(np.array([0, 1]), together) == pytest.approx(
        (0.72 - 0.32) / 2
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_every_share_is_a_share(seed: int, classes: int) -> None:
    y, p = case(seed, images=30, classes=classes)
    found = classification_metrics(y, p)
    flat = [found[k] for k in ("accuracy", "auc", "macro_f1", "ece")]
    flat += [x for k in ("precision", "recall", "f1", "accuracy_95ci") for x in found[k]]
    assert all(0 <= x <= 1 for x in flat)
    assert sum(map(sum, found["confusion"])) == found["images"] == 30
    low, high = found["accuracy_95ci"]
    assert low < found["accuracy"] < high or found["accuracy"] in (0.0, 1.0)


def test_the_interval_of_a_mean_is_that_of_resampled_images() -> None:
    values = np.random.default_rng(3).integers(-4, 9, 300)
    means = np.random.default_rng(4).choice(values, (10_000, 300)).mean(axis=1)
    np.testing.assert_allclose(mean_interval(values), np.percentile(means, [2.5, 97.5]), atol=0.02)
    assert mean_interval(values) == mean_interval(values[::-1].copy())
    assert mean_interval(np.full(7, 3)) == (3.0, 3.0)
    assert mean_interval(np.array([], np.int64)) == (0.0, 0.0)
    # Broken and mended images are the values 1 and -1.
    pairs = np.repeat([1, -1, 0], [60, 40, 300])
    np.testing.assert_allclose(mean_interval(pairs), paired_drop_interval(60, 40, 400), atol=0.004)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_no_finite_numbers_are_refused_in_one_line(value: float) -> None:
    y, p = case(0, images=30)
    p[[2, 5], 1] = value
    with pytest.raises(ModelError, match="answers 2 of 30 images with what is no finite number"):
        classification_metrics(y, p)


# ---- softmax and confusion ----


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=9), st.floats(-1e4, 1e4))
def test_softmax_sums_to_one_and_ignores_a_shift(logits: list[float], shift: float) -> None:
    p = softmax([logits])
    assert p.sum() == pytest.approx(1)
    assert np.allclose(p, softmax([[x + shift for x in logits]]), atol=1e-9)


def test_softmax_by_hand() -> None:
    assert softmax([[0.0, math.log(3)]]).tolist() == [pytest.approx([0.25, 0.75])]
    assert softmax([[1e9, 0.0]]).tolist() == [[1.0, 0.0]]


def test_confusion_rows_are_the_truth() -> None:
    assert confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], 3).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]
