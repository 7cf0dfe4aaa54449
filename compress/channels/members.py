"""What is recorded of each layer with weights: along which axes a removed channel is cut out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bloodedge.compress.channels.labels import Ids


@dataclass(frozen=True)
class Slice:
    """An axis of a weight whose entries belong to channels.

    Attributes:
        weight: its number in `layer.get_weights()`.
        axis: the axis.
        ids: the labels along it.
    """

    weight: int
    axis: int
    ids: Ids


@dataclass(frozen=True)
class MeanInput:
    """Inputs of a weight that are means over channels: they grow when zeros are removed.

    The mean over C channels of which only C' are not zero becomes the mean over C', larger by
    C / C'. The weight's entries for it shrink by C' / C, so that the product stays.

    Attributes:
        weight: the weight's number in `layer.get_weights()`.
        axis: the axis of its inputs.
        means: along that axis, which mean an input is, -1 for none.
    """

    weight: int
    axis: int
    means: Ids


@dataclass
class Member:
    """A layer whose weights or settings depend on the number of channels.

    Attributes:
        layer: the Keras layer of the source model.
        slices: where its weights are cut.
        out: the labels of its output channels.
        outputs: the weights whose last entries, seen as `(-1, C)`, scale or shift its outputs.
        key: the setting that holds the number of output channels, empty if none does.
        produces: whether its outputs are new channels, as a convolution's are.
        normalised: whether batch norm and nothing else takes its outputs.
        mean_inputs: inputs that must be rescaled.
    """

    layer: Any
    slices: list[Slice]
    out: Ids
    outputs: tuple[int, ...] = ()
    key: str = ""
    produces: bool = False
    normalised: bool = False
    mean_inputs: list[MeanInput] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def is_batch_norm(self) -> bool:
        """Whether it is batch norm."""
        return type(self.layer).__name__ == "BatchNormalization"
