"""What `bloodedge compress` is asked for, and the steps of training that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig, refuse_features
from bloodedge.errors import ConfigError
from bloodedge.references import find_keras
from bloodedge.runs import check_name, usual_name
from bloodedge.train.recipes import wide_augmentation
from bloodedge.train.registry import spec
from bloodedge.variants import Recipe, Step, Variant

# What a step does when neither the recipe nor an option says how far.
_DEFAULTS = {"slim": 50.0, "sparse": 50.0, "cluster": 16.0}
EVERY_STEP = ""
# Steps that wrap layers while they train.
_WRAPPING = {"sparse", "2of4", "cluster", "qat"}


@dataclass(frozen=True)
class RecipeConfig:
    """What is compressed, and how.

    Attributes:
        source: the model to compress: a run, a file or a zoo model. With `kd` it is the teacher,
            unless others are named; it is only read.
        recipe: the steps and formats.
        name: what the results' names begin with, instead of the source's or the student's.
        student: the registered model that `kd` trains,
        width: and its width.
        teachers: who teaches every step that trains; with `kd`, by default, the source.
        kd: the loss towards the teachers.
        views: over how many flips and turns the teachers' answers are computed.
        macs, kb, ratio: how far `slim` goes, where the recipe gives no number: one at most.
        sparsity: how far `sparse` goes: the share of zeros.
        clusters: how far `cluster` goes: values in each kernel.
        importance: what ranks channels.
        floor: the share of its channels that every layer keeps.
        epochs: of each kind of step, `EVERY_STEP` for those not named; by default each step's own.
        rates: peak learning rates, likewise.
        batch: images a step of training.
        per_class: calibration images of each class.
        seed: fixes every draw.

    Raises:
        ConfigError: settings that cannot work together, or that no step takes.
        ModelError: an unknown student.
    """

    source: str
    recipe: Recipe
    name: str = ""
    student: str = "cnn_se"
    width: float = 1.0
    teachers: tuple[str, ...] = ()
    kd: KdConfig = field(default_factory=KdConfig)
    views: int = 8
    macs: float | None = None
    kb: float | None = None
    ratio: float | None = None
    sparsity: float | None = None
    clusters: int | None = None
    importance: str = "taylor"
    floor: float = 0.1
    epochs: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    batch: int | None = None
    per_class: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name:
            check_name(self.name)
        if self.kd.method == "patient":
            raise ConfigError(
                "--method patient needs a live teacher",
                fix="distill the student with it first, and compress the result without kd",
            )
        if _WRAPPING & set(self.recipe.kinds()):
            refuse_features(self.teaching)
        if self.begins_anew:
            spec(self.student).check(self.width, "")
        elif self.student != "cnn_se" or self.width != 1.0:
            raise ConfigError("--student and --width are for kd", fix="begin the recipe with kd")
        for option, values in (("--epochs", self.epochs), ("--lr", self.rates)):
            for kind in values.keys() - {EVERY_STEP, *self.recipe.kinds()}:
                raise ConfigError(f"{option} {kind}=...: the recipe has no step {kind}")
        if "slim" in self.rates and not self.trains("slim"):
            raise ConfigError("--lr slim=...: slim does not train with --epochs 0")
        if self.teachers and not self.recipe.steps:
            raise ConfigError("a teacher, but no step that trains", fix="drop --teacher")
        _ = self.steps

    @property
    def begins_anew(self) -> bool:
        """Whether the first step trains a new student."""
        return "kd" in self.recipe.kinds()

    def trains(self, kind: str) -> bool:
        """Whether steps of a kind train; all do, but `slim` for no epochs."""
        return kind != "slim" or self.epochs.get(kind, self.epochs.get(EVERY_STEP)) != 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The recipe's steps, each with its number."""
        given = {"slim": self._slim(), "sparse": None, "cluster": None}
        if self.sparsity is not None:
            given["sparse"] = _step("sparse", 100 * self.sparsity)
        if self.clusters is not None:
            given["cluster"] = _step("cluster", self.clusters)
        open_kinds = {s.kind for s in self.recipe.steps if s.amount is None}
        for kind, step in given.items():
            if step and kind not in open_kinds:
                raise ConfigError(
                    f"the option for {kind} has no step to go to in {self.recipe.text}",
                    fix=f"write {step.text} in the recipe, or drop the option",
                )
        return tuple(
            (given[s.kind] or Step(s.kind, _DEFAULTS[s.kind]))
            if s.kind in given and s.amount is None
            else s
            for s in self.recipe.steps
        )

    def _slim(self) -> Step | None:
        limits = {"": self.macs, "kb": self.kb, "ch": self.ratio}
        chosen = {unit: value for unit, value in limits.items() if value is not None}
        if len(chosen) > 1:
            raise ConfigError(
                f"{len(chosen)} budgets", expected="at most one of --macs, --kb and --ratio"
            )
        for unit, value in chosen.items():
            return _step("slim", value if unit == "kb" else 100 * value, unit)
        return None

    @property
    def start(self) -> Variant:
        """What the results' names begin with."""
        if self.begins_anew:
            return Variant(self.name or self.student, self.width)
        return Variant.parse(self.name or usual_name(find_keras(self.source).name))

    @property
    def teaching(self) -> TeachingConfig | None:
        """Who teaches every step that trains; None for labels alone."""
        names = self.teachers or ((self.source,) if self.begins_anew else ())
        return TeachingConfig(names, self.kd, self.views) if names else None

    def of(self, kind: str) -> dict[str, Any]:
        """Return the settings of a fit that were given for a kind of step.

        Descendants of a source that was trained on widely varied images are to see such, too.
        """
        wide = None
        if not self.begins_anew:
            wide = wide_augmentation(find_keras(self.source).manifest)
        return {
            "epochs": self.epochs.get(kind, self.epochs.get(EVERY_STEP)),
            "learning_rate": self.rates.get(kind, self.rates.get(EVERY_STEP)),
            "batch": self.batch,
            "seed": self.seed,
            "augment": wide,
        }


def _step(kind: str, amount: float, unit: str = "") -> Step:
    # Six digits are more than anyone asks for, and 100 * 0.07 is not 7.
    return Step(kind, float(f"{amount:g}"), unit)
