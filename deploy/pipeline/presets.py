"""The presets of `bloodedge pipeline`: what is trained, and for how long.

The tables at the end are the one place for these choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bloodedge.errors import ConfigError, check_range
from bloodedge.runs import check_name
from bloodedge.train.registry import spec

QAT, PTQ = "qat", "ptq"


@dataclass(frozen=True)
class Teacher:
    """A full-size model, trained once, to compare students with and to teach others.

    Attributes:
        name: what the run's name ends in.
        model: a registered model.
        epochs: passes over train.
        width: multiplies its channels.
        seed: fixes its draws.
        fit: settings of `FitConfig` that differ from the strong recipe's.

    Raises:
        ConfigError: a width that the model does not take.
        ModelError: an unknown model.
    """

    name: str
    model: str
    epochs: int
    width: float = 1.0
    seed: int = 0
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        spec(self.model).check(self.width, "")


@dataclass(frozen=True)
class Student:
    """A model for the device, trained with several seeds.

    Attributes:
        model: a registered model.
        epochs: passes over train.
        int8: `qat`, trained for int8 after the float training, or `ptq`, calibrated alone.
        seeds: how many, from 0.
        qat_epochs: passes over train for int8; None for the recipe's own.
        fit: settings of `FitConfig` that differ from the strong recipe's.

    Raises:
        ConfigError: another `int8`, no seed, or settings for a QAT that is not done.
        ModelError: an unknown model.
    """

    model: str
    epochs: int
    int8: str = QAT
    seeds: int = 3
    qat_epochs: int | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec(self.model)
        if self.int8 not in (QAT, PTQ):
            raise ConfigError(f"{self.model}: int8 by {self.int8!r}", expected=f"{QAT} or {PTQ}")
        if self.int8 == PTQ and self.qat_epochs:
            raise ConfigError(f"{self.model}: settings of qat, but int8 by {PTQ}")
        check_range("--seeds", self.seeds, 1, 100)


@dataclass(frozen=True)
class Preset:
    """Everything that one command makes.

    Attributes:
        prefix: what the names of all its runs begin with.
        students: the models for the device.
        teachers: full-size models, which come last.

    Raises:
        ConfigError: two runs would have one name.
    """

    prefix: str
    students: tuple[Student, ...]
    teachers: tuple[Teacher, ...] = ()

    def __post_init__(self) -> None:
        check_name(f"{self.prefix}x")
        for names in ([s.model for s in self.students], [t.name for t in self.teachers]):
            if len(set(names)) < len(names):
                raise ConfigError(f"a model is named twice: {', '.join(names)}")

    def changed(self, *, name: str | None = None, seeds: int | None = None) -> Preset:
        """Return it with other names for its runs, or another number of seeds.

        Raises:
            ConfigError: a number out of range.
            RunError: a name that no run can have.
        """
        students = self.students
        if seeds is not None:
            students = tuple(replace(student, seeds=seeds) for student in students)
        prefix = self.prefix if name is None else f"{check_name(name)}-"
        return replace(self, prefix=prefix, students=students)


PRESETS = {
    "champion": Preset(
        prefix="",
        students=(
            Student("cnn_se", epochs=100),
            Student("cnn_se_nano", epochs=200),
            Student("cnn_se_pico", epochs=200),
        ),
        teachers=(
            Teacher(
                "vgg16",
                "vgg16",
                epochs=29,
                fit={"progressive": ((20, 32),), "precision": "bfloat16"},
            ),
        ),
    ),
    "quick": Preset(prefix="quick-", students=(Student("cnn_se", epochs=40, seeds=1),)),
}


def find_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r}", expected=" or ".join(PRESETS))
    return PRESETS[name]
