"""Train twice on one backend, step by step and several steps a dispatch, and compare.

python tests/training_twice.py BACKEND
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Split
from bloodedge.errors import TrainingError
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import HardLabels

# 12 steps, as dispatches of 5, 5 and 2.
STEPS, TOGETHER, BATCH, SIDE = 12, 5, 8, 16
POISONED = 7


class Poisoned(HardLabels):
    """Labels of which one step's are no numbers."""

    calls = 0

    def for_batch(self, index: Any, views: Any) -> Any:
        self.calls += 1
        return super().for_batch(index, views) * (np.nan if self.calls == POISONED else 1)


@contextmanager
def as_on_a_device(together: int) -> Iterator[None]:
    """Keep the images on the device and hand it several steps at once."""
    where = "bloodedge.train.trainer"
    with (
        mock.patch(f"{where}.has_accelerator", return_value=True),
        mock.patch(f"{where}.steps_per_dispatch", return_value=together),
    ):
        yield


def trainer(together: int, targets: type[HardLabels] = HardLabels) -> tuple[Any, Any]:
    """Return a net and what trains it, the same each time but for the dispatch."""
    import keras

    from bloodedge.train.trainer import Trainer

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, STEPS * BATCH)
    split = Split(rng.integers(0, 256, (len(labels), SIDE, SIDE, 3), dtype=np.uint8), labels)
    fit = FitConfig(3, BATCH, 5e-3, ema=0.9, augment=AugmentConfig(mixup=0.2))
    keras.utils.set_random_seed(0)
    net = build(ModelConfig("cnn_se", 3, SIDE, 0.25), size=SIDE)
    with as_on_a_device(together):
        return net, Trainer(net, split, targets(labels, 3), fit)


def main(backend: str) -> None:
    """Raise AssertionError where the two differ."""
    use_backend(backend)
    results = []
    for together in (1, TOGETHER):
        net, by = trainer(together)
        with as_on_a_device(together):
            rows = [by.train_epoch(epoch, SIDE) for epoch in range(2)]
        state = [*net.get_weights(), *(np.asarray(v) for v in by.optimizer.variables)]
        results.append((rows, state))
    (single, expected), (several, found) = results
    # XLA rounds otherwise inside a loop; TensorFlow runs the same kernels.
    near = 1e-4 if backend == "jax" else 0
    for one, two in zip(single, several, strict=True):
        np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=near)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=near, atol=near / 10)
    _, by = trainer(TOGETHER, Poisoned)
    with pytest.raises(TrainingError, match=f"step {POISONED}"):
        by.train_epoch(0, SIDE)


if __name__ == "__main__":
    main(sys.argv[1])
