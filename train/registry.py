"""The registry of models by name, and the configuration that rebuilds one of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloodedge.errors import ConfigError, ModelError, check_range
from bloodedge.train.models.catalog import CATALOG
from bloodedge.train.models.spec import SMALLEST, ModelSpec


@dataclass(frozen=True)
class ModelConfig:
    """What rebuilds a model: recorded in every manifest.

    Attributes:
        name: a registered model.
        classes: how many logits it has.
        size: the side of its images in pixels.
        width: multiplies the number of channels.
        attention: `none`, `se` or `cbam`; empty for the model's own design.

    Raises:
        ConfigError: a width, size or class count that no model can have, or that this one cannot.
        ModelError: a name that is not registered.
    """

    name: str
    classes: int
    size: int = 64
    width: float = 1.0
    attention: str = ""

    def __post_init__(self) -> None:
        check_range("--width", self.width, 0.05, 8)
        if not 2 <= self.classes <= 1000:
            raise ConfigError(f"{self.classes} classes", expected="2 to 1000")
        if not SMALLEST <= self.size <= 512:
            raise ConfigError(f"images of {self.size} pixels", expected=f"{SMALLEST} to 512 a side")
        entry = spec(self.name)
        entry.check(self.width, self.attention)
        entry.check_size(self.size)


_REGISTRY: dict[str, ModelSpec] = {}


def register(entry: ModelSpec) -> None:
    """Add a model.

    Raises:
        ConfigError: the name is taken.
    """
    if entry.name in _REGISTRY:
        raise ConfigError(f"the model {entry.name!r} is registered twice")
    _REGISTRY[entry.name] = entry


def models() -> Mapping[str, ModelSpec]:
    """Return every registered model by name."""
    return dict(_REGISTRY)


def spec(name: str) -> ModelSpec:
    """Return a registered model.

    Raises:
        ModelError: the name is unknown; the nearest one is suggested.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.3)
    raise ModelError(
        f"unknown model {name!r}",
        expected=", ".join(sorted(_REGISTRY)),
        fix=f"did you mean {near[0]!r}?" if near else "",
    )


def build(config: ModelConfig, *, size: int | None = None, batch: int | None = None) -> Any:
    """Build a model with fresh weights.

    Args:
        config: what to build.
        size: the static image size, or None for any; a model tied to one size is built for
            `config.size` then.
        batch: the static batch size, or None for any.
    """
    entry = spec(config.name)
    if size is None and not entry.any_size:
        size = config.size
    return entry.build(
        classes=config.classes,
        size=size,
        batch=batch,
        width=config.width,
        attention=config.attention,
    )


def blueprint(config: ModelConfig) -> Any:
    """Build a model without weights, which takes a third of the time: to count, not to run."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        return build(config, size=config.size)


for _entry in CATALOG:
    register(_entry)
