"""`bloodedge distill`: a compact student from a full-size teacher, as a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from bloodedge.compress.bank import Bank, BankKey, teacher_logits
from bloodedge.compress.targets import KdConfig, SoftLabels
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, ModelError
from bloodedge.references import ModelReference, find_model
from bloodedge.runs import Run, check_name, open_run
from bloodedge.train.augment import VIEWS
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import ModelConfig, spec
from bloodedge.train.restore import restore
from bloodedge.train.stage import Fitted, fit_run


@dataclass(frozen=True)
class DistillConfig:
    """What `bloodedge distill` makes from what.

    Attributes:
        teacher: a run's name, a path, or a model of the zoo.
        student: a registered model.
        teacher_views: over how many of the eight flips and turns the teacher's logits are
            computed: 1, 2, 4 or 8. Fewer cost less; the student still sees all eight.
        attention: `none`, `se` or `cbam` in place of the student's own design.

    Raises:
        ConfigError: settings that cannot work together.
        ModelError: an unknown student.
    """

    teacher: str
    student: str
    fit: FitConfig
    name: str
    kd: KdConfig = field(default_factory=KdConfig)
    width: float = 1.0
    teacher_views: int = VIEWS
    force: bool = False
    resume: bool = False
    attention: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        spec(self.student).check(self.width, self.attention)
        if self.teacher_views not in (1, 2, 4, VIEWS):
            raise ConfigError(f"--teacher-views {self.teacher_views}", expected="1, 2, 4 or 8")


def distill(config: DistillConfig, data: Dataset) -> Run:
    """Distill a teacher into a fresh student and write its run folder.

    Raises:
        ModelError: the teacher is missing, damaged, or has other classes than the data.
        RunError: the run exists, or cannot be resumed.
    """
    reference = find_model(config.teacher)
    with open_run(config.name, force=config.force, resumable=True, resume=config.resume) as run:
        bank = _bank(reference, config, data)
        labels = data["train"].labels
        student = ModelConfig(
            config.student, len(data.class_names), data.size, config.width, config.attention
        )
        what = Fitted(
            "distill",
            SoftLabels(labels, bank, config.kd),
            student,
            config.fit,
            asdict(config),
            {"teacher": reference.sha256},
        )
        return fit_run(what, data, run)


def _bank(reference: ModelReference, config: DistillConfig, data: Dataset) -> Bank:
    teacher = restore(reference)
    outputs, size = teacher.output_shape[-1], teacher.input_shape[1]
    if outputs != len(data.class_names):
        raise ModelError(
            f"the teacher {reference.name} has {outputs} classes, the data {len(data.class_names)}",
            fix="train a teacher on this data",
        )
    if size not in (None, data.size):
        raise ModelError(
            f"the teacher {reference.name} takes {size}x{size} images, the data has {data.size}",
            fix=f"--size {size}, or train a teacher at this size",
        )
    key = BankKey(reference.sha256, data.fingerprint, config.teacher_views)
    return teacher_logits(key, teacher, data)
