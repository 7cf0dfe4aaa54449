"""Distillation as targets of the training loop: what the student sees, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress import losses
from bloodedge.compress.bank import Bank
from bloodedge.compress.features import with_features
from bloodedge.errors import ConfigError

# The methods, with the weight of the teacher that each takes when none is given. Of all that were
# tried `kd`, with this weight, brought a student most (benchmarks/results/distill_methods.md).
METHODS = {"kd": 0.5, "dkd": 0.5, "dist": 0.5, "patient": 1.0, "feature": 0.9}


@dataclass(frozen=True)
class KdConfig:
    """The distillation loss: `(1 - alpha) CE(label) + alpha * method`.

    Attributes:
        temperature: T, which softens both distributions; T^2 keeps the gradient's size.
        alpha: the weight of the teacher, 0 to 1; unless given the method's own in `METHODS`.
        method: `kd`, KL of the softened distributions; `dkd`, the same with target and other
            classes decoupled; `dist`, correlations instead of KL, without T; `patient`, `kd` from
            a teacher that sees the same blended images, without labels (Beyer et al. 2022);
            `feature`, `kd` and which images are alike to the penultimate layer.

    Raises:
        ConfigError: an unknown method, or a value out of range.
    """

    temperature: float = 4.0
    alpha: float | None = None
    method: str = "kd"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--method {self.method!r}", expected=", ".join(METHODS))
        # A manifest records the number, not that none was given.
        object.__setattr__(self, "alpha", self.weight)
        if not 0.1 <= self.temperature <= 100:
            raise ConfigError(f"--temperature {self.temperature}", expected="0.1 to 100")
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"--alpha {self.alpha}", expected="0 to 1")
        if self.method == "patient" and self.alpha != 1:
            raise ConfigError("patient distillation knows no labels", fix="drop --alpha")

    @property
    def weight(self) -> float:
        """The weight of the teacher: `alpha`, or the method's own."""
        return METHODS[self.method] if self.alpha is None else self.alpha


@dataclass(frozen=True)
class Answer:
    """What a net says of a batch: `(B, C)` logits and, for `feature`, `(B, F)` features."""

    logits: Any
    features: Any = None


def distillation_loss(config: KdConfig, label: Any, teacher: Answer, student: Answer) -> Any:
    """Return the `(B,)` losses of a batch."""
    hard = losses.cross_entropy(label, student.logits)
    if config.method == "dkd":
        soft = losses.dkd(label, teacher.logits, student.logits, config.temperature)
    elif config.method == "dist":
        soft = losses.dist(teacher.logits, student.logits)
    else:
        soft = losses.kd(teacher.logits, student.logits, config.temperature)
    if config.method == "feature":
        soft = soft + losses.similarity(teacher.features, student.features)
    return (1 - config.weight) * hard + config.weight * soft


class SoftLabels:
    """Labels and the teacher's stored answers for the view the student sees.

    Args:
        labels: `(N,)` class indices.
        bank: `(N, V, C)` teacher logits with V a power of two; a view the bank does not cover
            takes the logits of the view that lacks its highest operation (the transpose first).
        config: the loss.
        features: `(N, V, F)`, which the method `feature` needs.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        bank: Bank,
        config: KdConfig,
        features: Bank | None = None,
    ) -> None:
        self._classes = bank.shape[2]
        self._one_hot = np.eye(self._classes, dtype=np.float32)[labels]
        self._banks = [bank] if features is None else [bank, features]
        self._config = config

    def for_batch(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return `(B, 2 C)`, or `(B, 2 C + F)`: one-hot labels, teacher's logits and features."""
        stored = [bank[index, views % bank.shape[1]].astype(np.float32) for bank in self._banks]
        return np.concatenate([self._one_hot[index], *stored], axis=1)

    def respond(self, net: Any) -> Any:
        """Return the net, with its features beside the logits where the loss takes them."""
        return net if len(self._banks) == 1 else with_features(net)

    def loss(self, target: Any, outputs: Any) -> Any:
        """Return the weighted loss of each image."""
        c = self._classes
        teacher = Answer(target[:, c : 2 * c], target[:, 2 * c :])
        student = Answer(outputs[:, :c], outputs[:, c:])
        return distillation_loss(self._config, target[:, :c], teacher, student)


class LiveTeachers:
    """Labels, and teachers that see every image exactly as the student does.

    Args:
        labels: `(N,)` class indices.
        teachers: Keras models, logits out; the mean of their logits teaches.
        config: the loss; `feature` takes one teacher.
    """

    def __init__(
        self, labels: NDArray[np.int64], teachers: tuple[Any, ...], config: KdConfig
    ) -> None:
        self._classes = int(teachers[0].output_shape[-1])
        self._one_hot = np.eye(self._classes, dtype=np.float32)[labels]
        self._teachers = teachers
        self._config = config
        self._width = self._classes

    def for_batch(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the `(B, C)` one-hot labels."""
        rows: NDArray[np.float32] = self._one_hot[index]
        return rows

    def respond(self, net: Any) -> Any:
        """Return a model that answers with the student's outputs, then the teachers'."""
        student, teachers = net, self._teachers
        if self._config.method == "feature":
            student, teachers = with_features(net), (with_features(teachers[0]),)
        self._width = int(student.output_shape[-1])
        return _make_classroom(student, teachers)

    def loss(self, target: Any, outputs: Any) -> Any:
        """Return the weighted loss of each image."""
        c, end = self._classes, self._width
        student = Answer(outputs[:, :c], outputs[:, c:end])
        teacher = Answer(outputs[:, end : end + c], outputs[:, end + c :])
        return distillation_loss(self._config, target, teacher, student)


def _make_classroom(student: Any, teachers: tuple[Any, ...]) -> Any:
    """Return a model whose rows are the student's, then the mean of the teachers' for the same."""
    import keras

    class Classroom(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="student_and_teachers")
            self.student = student
            self.teachers = list(teachers)
            for teacher in self.teachers:
                teacher.trainable = False

        def call(self, x: Any, training: bool = False) -> Any:
            outputs = [teacher(x, training=False) for teacher in self.teachers]
            taught = keras.ops.stop_gradient(keras.ops.mean(keras.ops.stack(outputs), axis=0))
            own = self.student(x, training=training)
            return keras.ops.concatenate([own, keras.ops.cast(taught, own.dtype)], axis=-1)

    return Classroom()
