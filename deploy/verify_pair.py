"""`bloodedge verify`: what one model lost against another on the same images, as a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bloodedge.console import say
from bloodedge.data.dataset import SPLITS, Dataset
from bloodedge.deploy import verify
from bloodedge.deploy.agreement import compare
from bloodedge.deploy.changed import CHANGED, Answers, write_changed
from bloodedge.deploy.evaluate import check_fit, file_entry
from bloodedge.deploy.predict import open_model
from bloodedge.errors import ConfigError, check_range
from bloodedge.references import ModelReference
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, check_name, open_run, usual_name

KIND = "verify"
# Any pair: the limits of an int8 export.
_USUAL_GATE = "int8"


@dataclass(frozen=True)
class VerifyConfig:
    """Which pair to compare, and what the child may lose.

    Attributes:
        parent: the model to keep up with.
        child: the model to check.
        split: the images to compare on.
        images: how many of them, class-balanced; 0 for all.
        name: the run's name; by default the child's, with `-verify`.
        max_drop, max_class_drop, max_ece: instead of the gate's own limits.
        seed: fixes the draw of images.
        force: replace a run of that name.

    Raises:
        ConfigError: an unknown split, or a number out of range.
        RunError: a name that no run can have.
    """

    parent: ModelReference
    child: ModelReference
    split: str = "val"
    images: int = 0
    name: str | None = None
    max_drop: float | None = None
    max_class_drop: float | None = None
    max_ece: float | None = None
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"--split {self.split!r}", expected=", ".join(SPLITS))
        if self.images < 0:
            raise ConfigError(f"--images {self.images}", expected="0 for all, or more")
        check_range("--seed", self.seed, 0, 2**31)
        if self.parent.path.resolve() == self.child.path.resolve():
            raise ConfigError(f"{self.child.path} is compared with itself", expected="two models")
        check_name(self.run_name)
        self.gate()

    @property
    def run_name(self) -> str:
        """The name of the run to write."""
        return self.name or usual_name(f"{self.child.name}-verify")

    def gate(self) -> verify.Gate:
        """Return what the child must keep.

        Raises:
            ConfigError: a limit is no fraction.
        """
        return verify.limits(
            _USUAL_GATE,
            max_drop=self.max_drop,
            max_class_drop=self.max_class_drop,
            max_ece=self.max_ece,
        )


def verify_pair(config: VerifyConfig, data: Dataset) -> Run:
    """Compare two models on the same images and write the run, whether the gate passed or not.

    The folder holds `changed.csv` with every image whose class changed (index in the split, truth,
    both classes and their probabilities), `changed.png` with those images, and the manifest.

    Raises:
        ModelError: a model is damaged, or does not fit the data.
        RunError: the run exists.
    """
    watch = Stopwatch()
    models = [open_model(reference) for reference in (config.parent, config.child)]
    for model in models:
        check_fit(model, data)
    split = data[config.split]
    index = verify.verification_indices(split.labels, config.images, 0, config.seed)
    images, labels = split.images[index], split.labels[index]
    reads = [model.reference.sha256 for model in models]
    with open_run(config.run_name, force=config.force, reads=reads) as run:
        say(f"{run.name}: {len(index):,} {config.split} images of {data.title}")
        before, after = (model.probabilities(images) for model in models)
        answers = Answers(config.split, index, before.astype(np.float64), after.astype(np.float64))
        found = compare(answers.before, after, labels)
        failed = verify.failures(config.gate(), found, data.class_names)
        write_changed(run.path, CHANGED, data, answers)
        metrics = {config.split: found.figures(), "failed": failed}
        return run.commit(_manifest(run, config, data, metrics, watch))


def _manifest(
    run: RunFolder, config: VerifyConfig, data: Dataset, metrics: dict[str, Any], watch: Stopwatch
) -> Manifest:
    return Manifest(
        kind=KIND,
        name=run.name,
        config={
            "parent": config.parent.name,
            "child": config.child.name,
            "split": config.split,
            "images": config.images,
            "gate": asdict(config.gate()),
        },
        data=data.describe(),
        parents={"parent": config.parent.sha256, "child": config.child.sha256},
        model={"class_names": list(data.class_names), "file": file_entry(config.child)},
        metrics=metrics,
        seed=config.seed,
        duration_s=watch.seconds(),
    )
