"""`bloodedge distill`: a compact student from full-size teachers, as a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bloodedge.compress.teaching import TeachingConfig, parents, teach
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError
from bloodedge.runs import Run, check_name, open_resumable
from bloodedge.train.architecture import Registered
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import ModelConfig, spec
from bloodedge.train.stage import Fitted, fit_run


@dataclass(frozen=True)
class DistillConfig:
    """What `bloodedge distill` makes from what.

    Attributes:
        teaching: who teaches, and how.
        student: a registered model.
        fit: how long and how.
        name: the run to write.
        width: multiplies the student's channels.
        force: replace a run of that name, and other logits in the file that is to keep some.
        resume: continue an interrupted run.
        attention: `none`, `se` or `cbam` in place of the student's own design.

    Raises:
        ConfigError: settings that cannot work together.
        ModelError: an unknown student.
        RunError: a name that no run can have.
    """

    teaching: TeachingConfig
    student: str
    fit: FitConfig
    name: str
    width: float = 1.0
    force: bool = False
    resume: bool = False
    attention: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        entry = spec(self.student)
        entry.check(self.width, self.attention)
        entry.check_phases(self.fit.smaller_sizes)
        if self.fit.augment.mixes and not self.teaching.live:
            raise ConfigError(
                "no stored answer fits blended images", fix="add --live, or drop --mixup"
            )


def distill(config: DistillConfig, data: Dataset) -> Run:
    """Distill teachers into a fresh student and write its run folder.

    Raises:
        ModelError: a teacher is missing, damaged, or has other classes or images than the data.
        DataError: stored logits are missing, damaged, or belong to other data, or the file that
            is to keep them holds others.
        RunError: the run exists, or cannot be resumed.
        ConfigError: the student does not take images of this size or so many classes, or as
            `bloodedge.train.loop.fit`.
        TrainingError: the loss became infinite or NaN.
        BloodedgeError: the run, or the file of logits, cannot be written.
    """
    by_role = parents(config.teaching)
    with open_resumable(config, reads=by_role.values()) as run:
        # First: a teacher that does not fit says so before anything is built.
        targets = teach(config.teaching, data, config.fit, force=config.force)
        student = Registered(
            ModelConfig(
                config.student, len(data.class_names), data.size, config.width, config.attention
            )
        )
        what = Fitted("distill", targets, student, config.fit, asdict(config), by_role)
        return fit_run(what, data, run)
