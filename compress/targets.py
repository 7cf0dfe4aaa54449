"""Distillation on logits as targets of the training loop (Hinton, Vinyals & Dean 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.bank import Bank
from bloodedge.errors import ConfigError


@dataclass(frozen=True)
class KdConfig:
    """The distillation loss: `(1 - alpha) CE(label) + alpha T^2 KL(teacher_T || student_T)`.

    Attributes:
        temperature: T, which softens both distributions; T^2 keeps the gradient's size.
        alpha: the weight of the teacher, 0 to 1.

    Raises:
        ConfigError: a value out of range.
    """

    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        if not 0.1 <= self.temperature <= 100:
            raise ConfigError(f"--temperature {self.temperature}", expected="0.1 to 100")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"--alpha {self.alpha}", expected="0 to 1")


class SoftLabels:
    """Labels and the teacher's logits for the view the student sees.

    Args:
        labels: `(N,)` class indices.
        bank: `(N, V, C)` teacher logits with V a power of two; a view the bank does not cover
            takes the logits of the view that lacks its highest operation (the transpose first).
        config: the loss.
    """

    def __init__(self, labels: NDArray[np.int64], bank: Bank, config: KdConfig) -> None:
        self._classes = bank.shape[2]
        self._one_hot = np.eye(self._classes, dtype=np.float32)[labels]
        self._bank = bank
        self._config = config

    def for_batch(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return `(B, 2 C)`: the one-hot labels, then the teacher's logits."""
        soft = self._bank[index, views % self._bank.shape[1]].astype(np.float32)
        return np.concatenate([self._one_hot[index], soft], axis=1)

    def loss(self, target: Any, logits: Any) -> Any:
        """Return the weighted loss of each image."""
        from keras import ops

        t, alpha = self._config.temperature, self._config.alpha
        label, teacher = target[:, : self._classes], target[:, self._classes :]
        hard = -ops.sum(label * ops.log_softmax(logits), axis=-1)
        log_teacher = ops.log_softmax(teacher / t)
        log_student = ops.log_softmax(logits / t)
        soft = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return (1 - alpha) * hard + alpha * t * t * soft
