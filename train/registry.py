"""The registry of models: names, builders, and what a builder may be asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bloodedge.errors import ConfigError, ModelError
from bloodedge.train.models import cnn_se, vgg


class Builder(Protocol):
    """How a family of models is built."""

    def __call__(
        self, *, classes: int, size: int | None, batch: int | None = None, width: float = 1.0
    ) -> Any:
        """Build a Keras model: `(N, H, W, 3)` pixel values 0..255 in, `(N, classes)` logits out.

        Args:
            classes: the number of classes.
            size: the side of the input images in pixels, or None for any.
            batch: the static batch size, or None for any.
            width: multiplies the number of channels.
        """


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        name: what `--model` takes.
        purpose: one line for `--help` and tables.
        role: `teacher` or `student`.
        build: the builder.
        any_size: whether the weights fit every image size, as progressive resizing needs.
    """

    name: str
    purpose: str
    role: str
    build: Builder
    any_size: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """What rebuilds a model: recorded in every manifest.

    Raises:
        ConfigError: a width or class count that no model can have.
        ModelError: a name that is not registered.
    """

    name: str
    classes: int
    size: int = 64
    width: float = 1.0

    def __post_init__(self) -> None:
        spec(self.name)
        if not 0.05 <= self.width <= 8:
            raise ConfigError(f"--width {self.width} is out of range", expected="0.05 to 8")
        if not 2 <= self.classes <= 1000:
            raise ConfigError(f"{self.classes} classes", expected="2 to 1000")
        if not 16 <= self.size <= 512:
            raise ConfigError(f"images of {self.size} pixels", expected="16 to 512 a side")


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
        size: the static image size, or None for any.
        batch: the static batch size, or None for any.
    """
    return spec(config.name).build(
        classes=config.classes, size=size, batch=batch, width=config.width
    )


register(
    ModelSpec(
        "vgg16",
        "VGG-16, configuration D with batch norm: the full-size teacher",
        "teacher",
        vgg.build_vgg16,
    )
)
register(
    ModelSpec(
        "cnn_se",
        "compact CNN with squeeze-and-excitation: the student for the device",
        "student",
        cnn_se.build_cnn_se,
    )
)
