"""The arithmetic of simulated int8, against its closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodedge.backend import use_backend
from bloodedge.compress.fake_quant import (
    activation_grid,
    fake_quant,
    fake_quant_weights,
    weight_scales,
)

SEEDS = st.integers(0, 2**31)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def grid(low: float, high: float) -> tuple[float, float]:
    scale, zero = activation_grid(np.float32(low), np.float32(high))
    return float(scale), float(zero)


@settings(max_examples=30)
@given(SEEDS)
def test_weights_have_a_scale_per_channel_and_err_by_half_a_step_at_most(seed):
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(3, 3, 2, 4)) * 10 ** rng.uniform(-3, 3, 4)).astype(np.float32)
    kernel[rng.random(kernel.shape) < 0.2] = 0
    scales = np.asarray(weight_scales(kernel, (3,)))
    expected = np.maximum(np.abs(kernel).max(axis=(0, 1, 2), keepdims=True), 1e-6) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    rounded = np.asarray(fake_quant_weights(kernel, (3,)))
    assert (np.abs(rounded - kernel) <= scales * 0.5 * (1 + 1e-4)).all()
    codes = rounded / scales
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert np.abs(codes).max() <= 127.001
    assert (rounded[kernel == 0] == 0).all()


def test_a_depthwise_kernel_has_a_scale_per_output_channel():
    kernel = np.arange(1, 1 + 3 * 3 * 2 * 2, dtype=np.float32).reshape(3, 3, 2, 2)
    scales = np.asarray(weight_scales(kernel, (2, 3)))
    assert scales.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(scales[0, 0], kernel[2, 2] / 127, rtol=1e-6)


@settings(max_examples=30)
@given(SEEDS)
def test_activations_err_by_half_a_step_inside_and_clip_outside(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-100, 100, 50).astype(np.float32)
    low = np.float32(rng.uniform(-100, 100))
    high = low + np.float32(10 ** rng.uniform(-2, 2))
    scale, zero = grid(low, high)
    assert -128 <= zero <= 127
    assert zero == round(zero)
    rounded = np.asarray(fake_quant(x, low, high))
    bottom, top = (-128 - zero) * scale, (127 - zero) * scale
    clipped = np.clip(x, bottom, top)
    assert (np.abs(rounded - clipped) <= scale * 0.501 + 1e-6 * max(abs(low), abs(high))).all()
    # The range is kept to half a step, as only the zero point is rounded.
    assert abs(bottom - min(low, 0)) <= 0.51 * scale
    assert abs(top - max(high, 0)) <= 0.51 * scale


def test_zero_is_exact_and_the_scale_is_a_255th_of_the_range():
    for low, high in ((-1.0, 2.0), (0.0, 6.0), (-3.0, -1.0), (0.7, 5.0), (-0.013, 4.9)):
        scale, _ = grid(low, high)
        assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-6)
        assert float(np.asarray(fake_quant(np.zeros(1, np.float32), low, high))[0]) == 0
    # The converter rounds the zero point of scaled pixels, -0.5, away from zero.
    assert grid(-1.0, 1.0)[1] == -1


def test_ties_go_up_as_in_tflite():
    pixels = np.arange(256, dtype=np.float32)
    scaled = np.asarray(fake_quant(pixels * np.float32(1 / 127.5) - 1, -1.0, 1.0))
    np.testing.assert_allclose(scaled, (pixels - 127) * 2 / 255, atol=1e-6)


def test_the_gradient_passes_straight_through_inside_and_stops_outside():
    import tensorflow as tf

    x = tf.Variable([-2.0, -0.9, -0.3, 0.0, 0.4, 1.9, 2.5])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(fake_quant(x, -1.0, 2.0))
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 1, 1, 0])
    kernel = tf.Variable(np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 1, 3, 4))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(3.0 * fake_quant_weights(kernel, (3,)))
    np.testing.assert_array_equal(tape.gradient(y, kernel), np.full((1, 1, 3, 4), 3.0))
