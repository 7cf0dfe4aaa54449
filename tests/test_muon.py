from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.train.config import FitConfig
from bloodedge.train.optimize import make_optimizer

RATE = 0.01
# A constant rate from the first step on.
FIT = FitConfig(10, learning_rate=RATE, weight_decay=0.0, clip=None, final_rate=1.0, warmup=0.0)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def steps(
    optimizer: str, shape: tuple[int, ...], gradients: list[np.ndarray], decay: float = 0.0
) -> np.ndarray:
    """Return how a weight of 8 moves in each step."""
    import keras

    weight = keras.Variable(np.full(shape, 8, np.float32), name="weight")
    fit = replace(FIT, optimizer=optimizer, weight_decay=decay)
    by: Any = make_optimizer(fit, 10)
    by.build([weight])
    found = []
    for gradient in gradients:
        before = keras.ops.convert_to_numpy(weight)
        by.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        found.append(keras.ops.convert_to_numpy(weight) - before)
    return np.stack(found)


def gradients(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return gradients, as a matrix mostly of one direction."""
    rng = np.random.default_rng(0)
    loud = np.multiply.outer(rng.normal(size=shape[:-1]), rng.normal(size=shape[-1]))
    return [(loud + 0.1 * rng.normal(size=shape)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (1, 1, 8, 32)])
def test_a_kernel_moves_as_far_in_every_direction(shape: tuple[int, ...]):
    given = gradients(shape)
    flat = (-1, shape[-1])
    for step, gradient in zip(steps("muon", shape, given)[1:], given[1:], strict=True):
        _, lengths, _ = np.linalg.svd(step.reshape(flat))
        usual = RATE * 0.2 * np.sqrt(max(step.reshape(flat).shape))
        assert (lengths > 0.5 * usual).all()
        assert (lengths < 1.5 * usual).all()
        assert np.linalg.cond(gradient.reshape(flat)) > 10
        assert (step * gradient).sum() < 0


def test_a_step_looks_ahead_of_the_averaged_gradient():
    shape = (3, 3, 8, 16)
    given = gradients(shape)
    first, second = (gradient.reshape(-1, 16) for gradient in given[:2])
    step = steps("muon", shape, given)[1].reshape(-1, 16)
    # Nesterov's: the average moves on by the gradient once more.
    ahead = second + 0.95 * (second + 0.95 * first)
    left, _, right = np.linalg.svd(ahead, full_matrices=False)
    turned = left.T @ step @ right.T
    lengths = np.abs(np.diag(turned))
    assert np.abs(turned - np.diag(np.diag(turned))).max() < 0.05 * lengths.min()


@pytest.mark.parametrize("shape", [(16,), (8, 16), (3, 3, 16, 1)])
def test_all_else_goes_by_adamw(shape: tuple[int, ...]):
    given = gradients(shape) if len(shape) > 1 else [np.ones(shape, np.float32)] * 3
    muon, adamw = (steps(name, shape, given, decay=0.2) for name in ("muon", "adamw"))
    np.testing.assert_allclose(muon, adamw, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(8,), (8, 16), (3, 3, 8, 16)])
def test_every_kind_of_weight_decays_at_the_rate_of_the_step(shape: tuple[int, ...]):
    none = [np.zeros(shape, np.float32)]
    moved = steps("muon", shape, none, decay=0.2)[0] - steps("muon", shape, none)[0]
    np.testing.assert_allclose(moved, -RATE * 0.2 * 8, rtol=1e-3)
