"""Train on one backend step by step and several steps a dispatch, and compare.

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
def dispatching(together: int, on_device: bool) -> Iterator[None]:
    """Hand the device several steps at once, and maybe let it keep the images."""
    where = "bloodedge.train.trainer"
    with (
        mock.patch(f"{where}.has_accelerator", return_value=on_device),
        mock.patch(f"{where}.steps_per_dispatch", return_value=together),
    ):
        yield


def trainer(targets: type[HardLabels] = HardLabels) -> tuple[Any, Any]:
    """Return a net and what trains it, the same each time but for the dispatch."""
    import keras

    from bloodedge.train.trainer import Trainer

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, STEPS * BATCH)
    split = Split(rng.integers(0, 256, (len(labels), SIDE, SIDE, 3), dtype=np.uint8), labels)
    fit = FitConfig(3, BATCH, 5e-3, ema=0.9, augment=AugmentConfig(mixup=0.2))
    keras.utils.set_random_seed(0)
    net = build(ModelConfig("cnn_se", 3, SIDE, 0.25))
    return net, Trainer(net, split, targets(labels, 3), fit)


def main(backend: str) -> None:
    """Raise AssertionError where they differ."""
    use_backend(backend)
    expected = outcome(1, on_device=True)
    # XLA rounds otherwise inside a loop; TensorFlow runs the same kernels.
    near = 1e-4 if backend == "jax" else 0
    for on_device in (True, False):
        compare(outcome(TOGETHER, on_device=on_device), expected, near)
        with dispatching(TOGETHER, on_device), pytest.raises(TrainingError) as caught:
            trainer(Poisoned)[1].train_epoch(0, SIDE)
        assert f"step {POISONED};" in str(caught.value)


def outcome(together: int, *, on_device: bool) -> tuple[list[dict[str, float]], list[Any]]:
    """Return the figures of two epochs, and the weights and the optimizer's state after them."""
    with dispatching(together, on_device):
        net, by = trainer()
        rows = [by.train_epoch(epoch, SIDE) for epoch in range(2)]
    return rows, [*net.get_weights(), *(np.asarray(v) for v in by.optimizer.variables)]


def compare(found: Any, expected: Any, near: float) -> None:
    """Raise AssertionError where two outcomes differ by more than `near`, relatively."""
    for two, one in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=near)
    for b, a in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=near, atol=near / 10)


if __name__ == "__main__":
    main(sys.argv[1])
