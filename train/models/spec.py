"""What a registered model is: its builder, what it is for, and what it may be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from bloodedge.errors import ConfigError

ATTENTION = ("none", "se", "cbam")
# A side of the smallest images that a data set may have, in pixels.
SMALLEST = 16


class Builder(Protocol):
    """How a family of models is built."""

    def __call__(
        self,
        *,
        classes: int,
        size: int | None,
        batch: int | None = None,
        width: float = 1.0,
        attention: str = "",
    ) -> Any:
        """Build a Keras model: `(N, H, W, 3)` pixel values 0..255 in, `(N, classes)` logits out.

        A builder may ignore `width` and `attention` where its `ModelSpec` says so: other values
        are refused before it is called.

        Args:
            classes: the number of classes.
            size: the side of the input images in pixels, or None for any.
            batch: the static batch size, or None for any.
            width: multiplies the number of channels.
            attention: one of `ATTENTION`, or empty for the model's own design.
        """


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        name: what `--model` takes.
        purpose: one line for `--help` and tables.
        role: `teacher`, `student`, or `study` for a row of the study to be beaten.
        build: the builder.
        any_size: whether the weights fit every image size, as progressive resizing needs.
        min_size: the smallest images it can take, in pixels a side.
        attention: which of `ATTENTION` it takes.
        scalable: whether `width` has an effect.
        published: the test accuracy in percent that the study gives for this row of it.
    """

    name: str
    purpose: str
    role: str
    build: Builder
    any_size: bool = True
    min_size: int = SMALLEST
    attention: tuple[str, ...] = ()
    scalable: bool = True
    published: float | None = None

    def check(self, width: float, attention: str) -> None:
        """Refuse what this model cannot be asked for.

        Raises:
            ConfigError: a width for a model that has one only, or an attention it does not take.
        """
        if width != 1 and not self.scalable:
            raise ConfigError(
                f"{self.name} has one width, not --width {width}",
                fix="drop --width, or choose a model that scales",
            )
        if attention and attention not in ATTENTION:
            raise ConfigError(f"--attention {attention!r}", expected=", ".join(ATTENTION))
        if attention and attention not in self.attention:
            takes = ", ".join(self.attention)
            raise ConfigError(
                f"{self.name} does not take --attention {attention}",
                expected=takes or "its own design, without --attention",
                fix="" if takes else "drop --attention, or choose a model that takes it",
            )

    def check_size(self, size: int) -> None:
        """Refuse images that are too small for this model.

        Raises:
            ConfigError: they are.
        """
        if size < self.min_size:
            raise ConfigError(
                f"{self.name} cannot take images of {size} pixels",
                expected=f"{self.min_size} or more a side",
            )

    def check_phases(self, sizes: Iterable[int]) -> None:
        """Refuse phases of training on smaller images that this model cannot have.

        Args:
            sizes: of their images, in pixels a side.

        Raises:
            ConfigError: it is tied to one image size, or some are too small for it.
        """
        for size in sizes:
            if not self.any_size:
                raise ConfigError(
                    f"{self.name} is tied to one image size", fix="drop --progressive"
                )
            # What every data set fulfils is no limit of the model.
            if self.min_size > SMALLEST and size < self.min_size:
                raise ConfigError(
                    f"--progressive: {self.name} cannot take images of {size} pixels",
                    expected=f"{self.min_size} or more a side",
                )
