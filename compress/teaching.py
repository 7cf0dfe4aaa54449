"""Who teaches, and how: teachers by name, or their stored logits, as targets for a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.compress.bank import (
    Bank,
    BankFile,
    BankKey,
    check_place,
    read_bank,
    teacher_answers,
    write_bank,
)
from bloodedge.compress.features import with_features
from bloodedge.compress.targets import KdConfig, LiveTeachers, SoftLabels
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, DataError
from bloodedge.files import sha256_of
from bloodedge.references import ModelReference, find_keras
from bloodedge.train.architecture import Ready
from bloodedge.train.augment import VIEWS
from bloodedge.train.config import FitConfig
from bloodedge.train.device import precision, resolve_precision
from bloodedge.train.restore import restore_for
from bloodedge.train.targets import HardLabels, Targets


@dataclass(frozen=True)
class TeachingConfig:
    """Who teaches, and how.

    Attributes:
        teachers: runs, paths or zoo models; several teach by the mean of their logits.
        kd: the loss.
        views: over how many of the eight flips and turns the teachers' answers are computed:
            1, 2, 4 or 8. Fewer cost less; the student still sees all eight.
        logits: a file of teacher logits: written when there are teachers, otherwise used.
        live: the teachers see every image exactly as the student does, shifted, tinted and
            blended, inside the training step. Without a GPU that costs a large teacher's pass
            for every image of every epoch.

    Raises:
        ConfigError: settings that cannot work together.
    """

    teachers: tuple[str, ...]
    kd: KdConfig = field(default_factory=KdConfig)
    views: int = VIEWS
    logits: str = ""
    live: bool = False

    def __post_init__(self) -> None:
        if self.views not in (1, 2, 4, VIEWS):
            raise ConfigError(f"--teacher-views {self.views}", expected="1, 2, 4 or 8")
        if not self.teachers and not self.logits:
            raise ConfigError("no teacher", fix="name one with --teacher, or give --teacher-logits")
        if self.kd.method == "feature" and len(self.teachers) != 1:
            raise ConfigError(
                f"--method feature with {len(self.teachers)} teachers", expected="one --teacher"
            )
        if self.kd.method == "feature" and self.logits:
            raise ConfigError(
                "--method feature with --teacher-logits, which keeps no features",
                fix="leave out --teacher-logits",
            )
        if self.kd.method == "patient" and not self.live:
            raise ConfigError("patient distillation needs a live teacher", fix="add --live")
        if self.live and (self.logits or not self.teachers):
            raise ConfigError(
                "a live teacher answers for itself", fix="name it with --teacher, without logits"
            )


def refuse_features(config: TeachingConfig | None) -> None:
    """Refuse the method `feature` where the layer that it looks at is wrapped.

    Raises:
        ConfigError: it is asked for.
    """
    if config is not None and config.kd.method == "feature":
        raise ConfigError(
            "--method feature with qat, cluster or weights to prune, which wrap the last layer",
            fix="choose another --method",
        )


def teach(
    config: TeachingConfig | None, data: Dataset, fit: FitConfig, *, force: bool = False
) -> Targets:
    """Return the targets of a student: stored answers, computed where they are missing, or live.

    Args:
        config: who teaches, and how; None for labels alone.
        data: its train split.
        fit: what the targets are for: the teachers compute in its precision, too, and labels
            are smoothed where they are all there is.
        force: whether the file that is to keep logits may hold others, which these replace.

    Raises:
        ModelError: a teacher is missing, damaged, or has other classes or images than the data.
        DataError: stored logits are missing, damaged, or belong to other data, or the file that
            is to keep them holds others.
    """
    labels = data["train"].labels
    if config is None:
        return HardLabels(labels, len(data.class_names), fit.label_smoothing)
    if not config.teachers:
        bank = read_bank(Path(config.logits), data)
        say(f"teacher logits of {', '.join(bank.teachers)} from {config.logits}")
        return SoftLabels(labels, bank.logits, config.kd)
    references = [find_keras(name) for name in config.teachers]
    names = tuple(reference.name for reference in references)
    if config.logits:
        # The teachers may take hours.
        check_place(Path(config.logits), names, data.fingerprint, force=force)
    half = resolve_precision(fit.precision)
    teachers = [(found, _ready(found, data, half)) for found in references]
    if config.live:
        return LiveTeachers(labels, tuple(model for _, model in teachers), config.kd)
    if config.kd.method == "feature":
        reference, model = teachers[0]
        key = BankKey(reference.sha256, data.fingerprint, config.views, "features", half)
        answers = teacher_answers(key, with_features(model), data)
        classes = len(data.class_names)
        return SoftLabels(labels, answers[..., :classes], config.kd, answers[..., classes:])
    logits = _mean_logits(teachers, config.views, data, half)
    if config.logits:
        write_bank(BankFile(logits, names, data.fingerprint), Path(config.logits), force=force)
        say(f"teacher logits kept in {config.logits}")
    return SoftLabels(labels, logits, config.kd)


def parents(config: TeachingConfig | None) -> dict[str, str]:
    """Return the SHA-256 of each teacher, by role, for the manifest; none where nobody teaches.

    Raises:
        ModelError: a teacher is missing.
        DataError: the file of teacher logits cannot be read.
    """
    if config is None:
        return {}
    if not config.teachers:
        return {"teacher_logits": _digest(Path(config.logits))}
    roles = ["teacher", *(f"teacher_{i}" for i in range(2, len(config.teachers) + 1))]
    shas = (find_keras(name).sha256 for name in config.teachers)
    return dict(zip(roles, shas, strict=True))


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            expected="a file that --teacher-logits has written",
            fix="give --teacher to write it",
        ) from error


def _ready(reference: ModelReference, data: Dataset, half: str) -> Any:
    """Return a teacher in a precision; its file's own is float32."""
    model = restore_for(reference, data, "teacher")
    if half == "float32":
        return model
    with precision(half):
        return Ready(model, {}).build()


def _mean_logits(
    teachers: list[tuple[ModelReference, Any]], views: int, data: Dataset, half: str
) -> Bank:
    """Return `(N, V, C)`: the mean of the teachers' logits, each first centred over the classes."""
    total = np.zeros((1, 1, 1), np.float32)
    for reference, model in teachers:
        key = BankKey(reference.sha256, data.fingerprint, views, precision=half)
        logits = teacher_answers(key, model, data).astype(np.float32)
        if len(teachers) == 1:
            return logits.astype(np.float16)
        total = total + logits - logits.mean(axis=-1, keepdims=True)
    mean: Bank = (total / len(teachers)).astype(np.float16)
    return mean
