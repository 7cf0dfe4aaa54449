"""The optimizer of few operations takes the steps of Keras' AdamW."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.train import optimize
from bloodedge.train.config import FitConfig

keras = use_backend()
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow trains so"
)
FIT = FitConfig(4, learning_rate=0.01, weight_decay=0.2, clip=1.0)
SHAPES = {"kernel": (3, 3, 4, 8), "bias": (8,), "gamma": (8,)}
# Gradients far above what is clipped to, about there, far below it, and none.
LENGTHS = (100.0, 0.2, 1e-4, 0.0, 3.0)


def after_steps(optimizer: Any) -> list[np.ndarray]:
    """Return weights and the optimizer's variables after steps of several lengths."""
    rng = np.random.default_rng(0)
    weights = [
        keras.Variable(rng.normal(size=shape), dtype="float32", name=name)
        for name, shape in SHAPES.items()
    ]
    optimizer.build(weights)
    for length in LENGTHS:
        gradients = [length * rng.normal(size=weight.shape) for weight in weights]
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients], weights)
    return [np.asarray(v) for v in [*weights, *optimizer.variables]]


@pytest.mark.parametrize(
    "fit", [FIT, replace(FIT, clip=None), replace(FIT, weight_decay=0.0), replace(FIT, ema=0.9)]
)
def test_steps_and_variables_are_those_of_keras(fit: FitConfig, monkeypatch):
    ours = after_steps(optimize.make_optimizer(fit, 5))
    monkeypatch.setattr(optimize, "fused_adamw", lambda: keras.optimizers.AdamW)
    theirs = after_steps(optimize.make_optimizer(fit, 5))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_only_kernels_decay():
    fit = replace(FIT, clip=None)
    decayed = after_steps(optimize.make_optimizer(fit, 5))
    free = after_steps(optimize.make_optimizer(replace(fit, weight_decay=0.0), 5))
    moved = [np.abs(a - b).max() > 1e-4 for a, b in zip(decayed, free, strict=True)]
    assert moved[:3] == [True, False, False]


def test_each_gradient_is_clipped_by_its_own_length():
    weights = [keras.Variable(np.ones(n), dtype="float32", name="kernel") for n in (4, 8)]
    optimizer = optimize.make_optimizer(FIT, 5)
    optimizer.build(weights)
    loud, soft = np.full(4, 50.0, np.float32), np.full(8, 0.1, np.float32)
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in (loud, soft)], weights)
    averages = [next(np.asarray(v) for v in optimizer.variables if v.shape == (n,)) for n in (4, 8)]
    # A tenth of a gradient of length 1, and a tenth of the one that is shorter.
    np.testing.assert_allclose(averages[0], 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(averages[1], 0.1 * 0.1, rtol=1e-5)
