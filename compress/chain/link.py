"""One step of a chain, and whether a finished run is what the step would make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from bloodedge.compress.teaching import TeachingConfig, parents
from bloodedge.data.dataset import Dataset
from bloodedge.references import find_model
from bloodedge.runs import Run
from bloodedge.train.finished import ASIDE, settings_that_differ

# Models and teachers are compared by their digests; how many interpreters answer changes nothing.
_ASIDE = ASIDE | {"model", "teaching.teachers", "teaching.logits", "workers"}


@dataclass(frozen=True)
class Link:
    """One step: a stage with its settings.

    Attributes:
        step: as the recipe writes it.
        config: the stage's settings: a dataclass with `name` and `force`.
        stage: makes the run.
        parent: what it starts from: a run, a file or a zoo model; empty for a fresh student.
        teaching: who teaches it.
        role: under which manifests name the digest of what it starts from.
    """

    step: str
    config: Any
    stage: Callable[[Any, Dataset], Run]
    parent: str = ""
    teaching: TeachingConfig | None = None
    role: str = "parent"

    @property
    def name(self) -> str:
        """The run it makes."""
        return str(self.config.name)

    def made(self, data: Dataset, *, force: bool) -> Run:
        """Make the run; one that was interrupted is continued, or with `force` started over."""
        options = {"force": force, "resume": not force}
        known = {field.name for field in fields(self.config)}
        config = replace(self.config, **{k: v for k, v in options.items() if k in known})
        return self.stage(config, data)

    def settings_that_differ(self, manifest: Mapping[str, Any], data: Dataset) -> list[str]:
        """Return how a finished run's settings and data differ from this step's, in words.

        A setting that a run of an earlier version does not have was off then.
        """
        aside = _ASIDE if _failed(manifest) else _ASIDE | {"allow_failing"}
        return settings_that_differ(self.config, manifest, data, aside)

    def parents_that_differ(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return which of the models a finished run was made from are others than now, in words.

        Raises:
            ModelError: a model that this step needs is missing.
        """
        wanted = parents(self.teaching)
        if self.parent:
            wanted = {self.role: find_model(self.parent).sha256, **wanted}
        recorded = manifest.get("parents", {})
        return [
            f"its {role} {'was another' if role in recorded else 'is missing'}"
            if role in wanted
            else f"it had a {role}"
            for role in sorted(wanted.keys() | recorded.keys())
            if wanted.get(role) != recorded.get(role)
        ]


def _failed(manifest: Mapping[str, Any]) -> bool:
    """Whether a file failed its gate; where none did, it was not asked whether one may."""
    variants = manifest.get("metrics", {}).get("variants", {})
    return any(variant.get("failed") for variant in variants.values())
