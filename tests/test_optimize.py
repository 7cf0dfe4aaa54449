"""The schedule and the rules of the optimizers that are Keras' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.train.config import FitConfig
from bloodedge.train.optimize import learning_rate, make_optimizer


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def test_the_warm_up_takes_its_fraction_of_the_steps_of_all_epochs():
    fit = FitConfig(epochs=4, learning_rate=0.2, warmup=0.5)
    assert learning_rate(fit, 10, 10) == pytest.approx(0.1)
    assert learning_rate(fit, 10, 20) == pytest.approx(0.2)
    assert learning_rate(fit, 10, 30) == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup", "first"), [(0.0, 0.2), (1e-9, 0.0)])
def test_without_a_warm_up_the_first_step_has_the_full_rate(warmup: float, first: float):
    fit = FitConfig(epochs=4, learning_rate=0.2, warmup=warmup)
    schedule = make_optimizer(fit, 10)._learning_rate
    assert learning_rate(fit, 10, 0) == first
    for step in (0, 1, 20, 39, 40):
        assert float(schedule(step)) == pytest.approx(learning_rate(fit, 10, step), abs=1e-6)


def test_sgd_looks_ahead_as_nesterov_does():
    import keras

    rate, momentum = 0.1, 0.9
    fit = FitConfig(100, learning_rate=rate, final_rate=1.0, warmup=0.0, optimizer="sgd", clip=None)
    by: Any = make_optimizer(fit, 10)
    # Without decay, as a bias.
    weight = keras.Variable(np.zeros(2, np.float32), name="bias")
    by.build([weight])
    speed, expected = np.zeros(2), np.zeros(2)
    for gradient in (np.array([1.0, -2.0]), np.array([0.5, 3.0]), np.array([-1.0, 1.0])):
        by.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        speed = momentum * speed - rate * gradient
        expected = expected + momentum * speed - rate * gradient
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-5)
