"""One step of a chain, and whether a finished run is what the step would make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bloodedge.compress.teaching import TeachingConfig, parents
from bloodedge.data.dataset import Dataset
from bloodedge.references import find_model
from bloodedge.runs import Run
from bloodedge.train.device import batch_parts

# What says where a run is and how it is started, not what it is. Models and teachers are
# compared by their digests.
_ASIDE = {"name", "model", "force", "resume", "teaching.teachers", "teaching.logits"}


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
        recorded = dict(_flat(manifest.get("config", {})))
        aside = _ASIDE if _failed(manifest) else _ASIDE | {"allow_failing"}
        config = asdict(self.config)
        wanted = dict(_flat(json.loads(json.dumps(config))))
        if "fit" in config:
            # A batch in parts gives batch norm other statistics; a whole one leaves no entry.
            recorded = {"devices": 1, **recorded}
            wanted["devices"] = batch_parts()
        found = [
            f"{key} is {_word(recorded.get(key))}, not {_word(value)}"
            for key, value in wanted.items()
            if key not in aside and recorded.get(key) != value and (key in recorded or value)
        ]
        if manifest["data"].get("fingerprint") != data.fingerprint:
            found.append(f"its data is {manifest['data'].get('title')}, not {data.title}")
        return found

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


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested JSON objects by their dotted path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
