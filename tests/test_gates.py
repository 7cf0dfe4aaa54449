"""Each gate fails for its own reason, and the statistics are those of their definitions."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from bloodedge.deploy import verify
from bloodedge.deploy.agreement import Comparison, compare
from bloodedge.deploy.audit import CALIBRATED
from bloodedge.errors import ConfigError, VerificationError
from bloodedge.metrics import brier_score, mcnemar_exact, paired_drop_interval

GOOD = Comparison(1000, 1.0, 1e-6, 0.98, 0.98, class_images=(500, 50), recall_drop=(0.0, 0.0))


@pytest.mark.parametrize("variant", verify.GATES)
def test_what_is_equal_passes(variant: str) -> None:
    assert verify.failures(verify.GATES[variant], GOOD) == []
    verify.check(variant, [], GOOD.images)


@pytest.mark.parametrize("variant", verify.GATES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"agreement": 0.9},
            "the agreement with the parent is 0.9 of 1000 images, expected",
        ),
        ({"agreement": float("nan")}, "the agreement with the parent is nan"),
        ({"accuracy": 0.96}, "the loss of accuracy is 0.02, expected at most"),
        ({"recall_drop": (0.0, 0.1)}, "the loss of recall of rare is 0.1, expected at most 0.05"),
        ({"ece_rise": 0.03}, "the rise of the calibration error is 0.03, expected at most 0.02"),
        ({"ece_rise": float("nan")}, "the rise of the calibration error is nan"),
    ],
)
def test_a_gate_fails_for_its_own_reason_only(
    variant: str, change: dict[str, float], reason: str
) -> None:
    lines = verify.failures(verify.GATES[variant], replace(GOOD, **change), ("common", "rare"))
    assert len(lines) == 1
    assert lines[0].startswith(reason)
    with pytest.raises(VerificationError, match=f"{variant}: {reason}.*--allow-failing"):
        verify.check(variant, lines, GOOD.images)


@pytest.mark.parametrize("variant", verify.GATES)
def test_only_what_is_calibrated_is_told_to_calibrate_more(variant: str) -> None:
    with pytest.raises(VerificationError) as error:
        verify.check(variant, ["the loss of accuracy is 0.02"], 1000)
    assert ("--calibration-per-class" in str(error.value)) is (variant in CALIBRATED)


def test_float32_may_not_differ_at_all() -> None:
    (line,) = verify.failures(verify.GATES["float32"], replace(GOOD, max_difference=1e-3))
    assert line.startswith("the largest difference of a probability is 0.001")


def test_one_image_of_a_rare_type_does_not_fail() -> None:
    rare = replace(GOOD, class_images=(500, 4), recall_drop=(0.0, 0.25))
    assert verify.failures(verify.GATES["int8"], rare) == []
    assert verify.failures(verify.GATES["int8"], replace(rare, recall_drop=(0.0, 0.5)))


@pytest.mark.parametrize("variant", [name for name in verify.GATES if name != "float32"])
@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"agreement": 0.9}, {"agreement": 0.8}),
        ({"accuracy": 0.88}, {"accuracy": 0.78}),
        ({"recall_drop": (0.1, 0.0)}, {"recall_drop": (0.2, 0.0)}),
        ({"ece_rise": 0.2}, {"ece_rise": 0.3}),
    ],
)
def test_one_image_of_ten_does_not_fail(
    variant: str, change: dict[str, float], more: dict[str, float]
) -> None:
    few = replace(GOOD, images=10, class_images=(10, 0))
    assert verify.failures(verify.GATES[variant], replace(few, **change)) == []
    (line,) = verify.failures(verify.GATES[variant], replace(few, **more))
    with pytest.raises(VerificationError, match="10 images are few to tell by"):
        verify.check(variant, [line], few.images)


@pytest.mark.parametrize("images", range(1, 120))
def test_one_image_less_right_does_not_fail_however_sure(images: int) -> None:
    """Through the figures as they are computed, whose shares are rounded."""
    labels = np.zeros(images, np.int64)
    parent = np.full((images, 4), 0.02)
    parent[:, 0] = 0.94
    parent[-1] = [0.4, 0.2, 0.2, 0.2]
    child = parent.copy()
    child[-1] = [0.01, 0.97, 0.01, 0.01]
    found = compare(parent, child.astype(np.float32), labels)
    assert verify.failures(verify.GATES["int8"], found) == []
    if images > 1:
        child[0] = child[-1]
        found = compare(parent, child.astype(np.float32), labels)
        assert verify.failures(verify.GATES["int8"], found)


def test_what_the_user_asks_for_holds_to_the_image() -> None:
    lost = replace(GOOD, images=10, accuracy=0.88)
    (line,) = verify.failures(verify.limits("int8", max_drop=0.05), lost)
    assert line.startswith("the loss of accuracy is 0.1")
    rare = replace(GOOD, class_images=(500, 50), recall_drop=(0.0, 0.02))
    assert verify.failures(verify.limits("int8", max_class_drop=0.0), rare)
    assert verify.failures(verify.limits("int8", max_ece=0.0), replace(GOOD, ece_rise=0.0001))
    # And float32, which computes the same, has none to lose.
    assert verify.failures(verify.GATES["float32"], replace(GOOD, images=10, agreement=0.9))


def test_images_that_only_change_their_bin_raise_no_calibration_error() -> None:
    # Two halves, right and wrong, on either side of the bound between two bins: apart, each bin
    # is far from its confidence; a hair more confidence brings them together.
    labels = np.repeat([0, 1], 50)
    bound = 10 / 15
    sure = np.where(labels == 0, bound - 0.001, bound + 0.001)
    child = np.stack([sure, 1 - sure], axis=1)
    together = np.full_like(sure, bound - 0.001)
    parent = np.stack([together, 1 - together], axis=1)
    found = compare(parent, child.astype(np.float32), labels)
    assert found.ece - found.parent_ece > 0.2
    assert abs(found.ece_rise) < 0.002
    assert verify.failures(verify.GATES["int8"], found) == []


def test_bolder_answers_raise_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.6, 0.9, 400)
    labels = np.where(rng.random(400) < sure, 0, 1)
    parent = np.stack([sure, 1 - sure], axis=1)
    child = np.stack([sure + 0.1, 0.9 - sure], axis=1).astype(np.float32)
    found = compare(parent, child, labels)
    assert found.ece_rise == pytest.approx(found.ece - found.parent_ece, abs=0.03)
    (line,) = verify.failures(verify.GATES["int8"], found)
    assert line.startswith("the rise of the calibration error")


def test_limits_that_are_given_replace_the_gates_own() -> None:
    gate = verify.limits("int8", max_drop=0.1, max_class_drop=0.2, max_ece=0.3)
    assert (gate.accuracy_drop, gate.class_drop, gate.ece_rise) == (0.1, 0.2, 0.3)
    assert gate.agreement == verify.GATES["int8"].agreement
    assert verify.limits("int8") == verify.GATES["int8"]
    assert gate.given == ("accuracy_drop", "class_drop", "ece_rise")
    assert verify.limits("int8", max_drop=0.0).accuracy_drop == 0.0
    with pytest.raises(ConfigError, match="--max-ece"):
        verify.limits("int8", max_ece=2)


@pytest.mark.parametrize(
    ("option", "change", "value", "figure"),
    [
        ("max_drop", {"accuracy": 0.96}, 0.02, "loss of accuracy"),
        ("max_class_drop", {"recall_drop": (0.0, 0.25)}, 0.25, "loss of recall of rare"),
        ("max_ece", {"ece_rise": 0.125}, 0.125, "rise of the calibration error"),
    ],
)
def test_an_option_moves_its_own_gate_and_no_other(
    option: str, change: dict[str, Any], value: float, figure: str
) -> None:
    found, names = replace(GOOD, **change), ("common", "rare")
    others = {o: 0.0 for o in ("max_drop", "max_class_drop", "max_ece") if o != option}
    # Just met, with every other gate closed; a hair above, it fails, and names the figure.
    met = verify.limits("int8", **{option: value + 1e-9}, **others)
    assert verify.failures(met, found, names) == []
    tight = verify.limits("int8", **{option: value - 1e-3}, **others)
    (line,) = verify.failures(tight, found, names)
    assert line.startswith(f"the {figure} is ")
    assert line.endswith(f"expected at most {value - 1e-3:g}")


def test_the_comparison_counts_what_was_broken_and_mended() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    parent = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9]])
    child = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)
    found = compare(parent, child, labels)
    assert (found.broken, found.mended) == (2, 1)
    assert found.accuracy_drop == pytest.approx(0.2)
    assert found.class_images == (3, 2)
    assert found.recall_drop == (0.0, 0.5)
    assert found.recall == pytest.approx((2 / 3, 0.5))
    assert found.mcnemar_p == 1.0
    assert found.parent_brier == pytest.approx(2 * (0.1**2 + 0.2**2 + 0.7**2 + 0.2**2 + 0.1**2) / 5)


def test_intervals_and_scores_are_those_of_their_own_model_and_class() -> None:
    labels = np.repeat([0, 1], [40, 10])
    parent = np.eye(2)[labels] * 0.8 + 0.1
    child = parent.astype(np.float32)
    child[:6] = child[:6, ::-1]
    found = compare(parent, child, labels)
    assert found.accuracy_drop_95ci == paired_drop_interval(6, 0, 50)
    assert found.recall_drop_95ci == (
        paired_drop_interval(6, 0, 40),
        paired_drop_interval(0, 0, 10),
    )
    # Of 50 answers at 0.9 the child has 44 right, the parent all.
    assert (found.ece, found.parent_ece) == pytest.approx((0.02, 0.1), abs=1e-6)
    assert found.brier == pytest.approx((44 * 0.02 + 6 * 1.62) / 50, abs=1e-6)
    assert found.parent_brier == pytest.approx(0.02)


def test_mcnemar_is_the_binomial_test() -> None:
    """Against every outcome of n fair coins, counted one by one."""
    for broken, mended in [(0, 0), (1, 0), (5, 0), (3, 6), (4, 4), (1, 9)]:
        n = broken + mended
        extreme = sum(
            abs(2 * sum(coins) - n) >= abs(broken - mended) for coins in product((0, 1), repeat=n)
        )
        assert mcnemar_exact(broken, mended) == pytest.approx(extreme / 2**n)


def test_mcnemar_of_thousands_of_pairs_is_exact_and_quick() -> None:
    tail = sum(math.comb(700, k) for k in range(331))
    assert mcnemar_exact(330, 370) == mcnemar_exact(370, 330) == 2 * tail / 2**700
    began = time.process_time()
    assert mcnemar_exact(4000, 4000) == 1.0
    assert time.process_time() - began < 0.5


def test_the_paired_interval_is_that_of_resampled_images_where_many_changed() -> None:
    broken, mended, total = 60, 40, 400
    change = np.zeros(total)
    change[:broken], change[broken : broken + mended] = 1, -1
    rng = np.random.default_rng(1)
    means = change[rng.integers(0, total, (4000, total))].mean(axis=1)
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(paired_drop_interval(broken, mended, total), expected, atol=0.004)
    assert paired_drop_interval(0, 0, 0) == (0.0, 0.0)
    # Agresti & Min by hand: 0 of 4 images, half an image more in each cell.
    reach = 1.959964 * math.sqrt(1 / 6 / 6)
    assert paired_drop_interval(0, 0, 4) == pytest.approx((-reach, reach))


@pytest.mark.parametrize(
    ("total", "broken", "mended"), [(50, 0.02, 0.0), (213, 0.005, 0.002), (512, 0.004, 0.002)]
)
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(
    total: int, broken: float, mended: float
) -> None:
    """Few images change in a good compression, where a bootstrap covers two thirds."""
    draws = np.random.default_rng(1).multinomial(total, [broken, mended, 1 - broken - mended], 2000)
    intervals = [paired_drop_interval(int(b), int(m), total) for b, m, _ in draws]
    assert np.mean([low <= broken - mended <= high for low, high in intervals]) >= 0.95


def test_the_brier_score_is_0_when_sure_and_right_and_2_when_sure_and_wrong() -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert brier_score(np.array([0, 1]), p) == 0
    assert brier_score(np.array([1, 0]), p) == 2
