"""Distillation losses far from the ordinary: logits far apart for the temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress import losses

Array = NDArray[np.float64]


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return use_backend()


def log_softmax(z: Array) -> Array:
    z = z - z.max()
    rows: Array = z - np.log(np.exp(z).sum())
    return rows


def others(teacher: Array, student: Array, t: float) -> tuple[float, Array]:
    """Return `8 T^2 KL` of logits that are not the label's, and its slope along the student's."""
    p, q = log_softmax(teacher / t), log_softmax(student / t)
    return 8 * t**2 * float((np.exp(p) * (p - q)).sum()), 8 * t * (np.exp(q) - np.exp(p))


def value_and_slope(label: Array, teacher: Array, student: Array, t: float) -> tuple[Any, Any]:
    import tensorflow as tf

    y, z, s = (tf.constant(a, tf.float32) for a in (label, teacher, student))
    with tf.GradientTape() as tape:
        tape.watch(s)
        loss = losses.dkd(y, z, s, t)
    return loss.numpy(), tape.gradient(loss, s).numpy()


@pytest.mark.parametrize("own", [90.0, 110.0, 3e4])
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_decoupled_distillation_compares_the_other_classes_however_sure_both_are(
    own: float, t: float
):
    rest, found = np.array([1.0, 0.6, -0.2]), np.array([0.4, 0.7, 0.1])
    value, slope = others(rest, found, t)
    logits = (np.array([[own, *rest]]), np.array([[own, *found]]))
    loss, gradient = value_and_slope(np.eye(4)[[0]], *logits, t)
    # Both are sure of the label's class, so the first part is 0.
    np.testing.assert_allclose(loss, [value], rtol=1e-4)
    np.testing.assert_allclose(gradient, [[0, *slope]], rtol=1e-3, atol=1e-6)


def test_a_label_that_both_exclude_leaves_the_loss_finite():
    logits = np.array([[-110.0, 1, 0, -1], [-3e4, 0, 0, 0]])
    loss, gradient = value_and_slope(np.eye(4)[[0, 0]], logits, logits[:, ::-1], 0.1)
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()


def test_with_two_classes_there_is_nothing_to_divide_among_others():
    teacher, student = np.array([[3.0, -1]]), np.array([[1.0, 2]])
    p, q = log_softmax(teacher[0] / 4), log_softmax(student[0] / 4)
    loss, _ = value_and_slope(np.eye(2)[[0]], teacher, student, 4.0)
    np.testing.assert_allclose(loss, [16 * (np.exp(p) * (p - q)).sum()], rtol=1e-4)
