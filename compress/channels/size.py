"""What a model with fewer channels will cost, before it is built: MACs and bytes of int8 weights.

Bytes are those of the weights alone as int8 TFLite stores them: one for each weight of a kernel,
four for each bias (int32). Batch norm is folded into the layer before it, so it counts nothing
itself, and every convolution and dense layer counts a bias. The tables of per-channel scales and
the names in a `.tflite` file come on top: some ten to thirty kilobytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from bloodedge.compress.channels.graph import ChannelGraph
from bloodedge.compress.channels.labels import Ids
from bloodedge.compress.channels.members import Member
from bloodedge.train.cost import macs_by_layer

_BIAS_BYTES = 4
_VECTORS = ("bias", "gamma", "beta")
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Length:
    """The length of an axis: what is fixed, and how often it holds each group's channels."""

    fixed: int
    parts: tuple[tuple[str, int], ...] = ()

    def at(self, counts: Counts) -> int:
        """Return the length when the groups have so many channels."""
        return self.fixed + sum(times * counts[name] for name, times in self.parts)


@dataclass(frozen=True)
class Tensor:
    """A weight: its lengths, its MACs for each number (one per position), its bytes for each."""

    lengths: tuple[Length, ...]
    macs: int
    bytes: int

    def size(self, counts: Counts) -> int:
        """Return how many numbers it holds."""
        return prod(length.at(counts) for length in self.lengths)


@dataclass(frozen=True)
class LayerSize:
    """The cost of one layer for any number of channels."""

    tensors: tuple[Tensor, ...]

    @property
    def groups(self) -> set[str]:
        """The groups it depends on."""
        return {name for t in self.tensors for length in t.lengths for name, _ in length.parts}

    def macs(self, counts: Counts) -> int:
        """Return its multiply-accumulates for one image."""
        return sum(t.macs * t.size(counts) for t in self.tensors if t.macs)

    def bytes(self, counts: Counts) -> int:
        """Return the bytes of its int8 weights."""
        return sum(t.bytes * t.size(counts) for t in self.tensors if t.bytes)


def _layer_bytes(layer: Any) -> int:
    held = sum(int(prod(w.shape)) * _bytes_each(layer, w) for w in layer.weights)
    return held + (_BIAS_BYTES * int(layer.output.shape[-1]) if _lacks_bias(layer) else 0)


def _bytes_each(layer: Any, weight: Any) -> int:
    if type(layer).__name__ == "BatchNormalization":
        return 0
    return _BIAS_BYTES if weight.name in _VECTORS else 1


def _lacks_bias(layer: Any) -> bool:
    """Whether it has none, and will be exported with one."""
    return getattr(layer, "use_bias", True) is False


def layer_sizes(graph: ChannelGraph) -> dict[str, LayerSize]:
    """Return the cost of every layer with weights as a function of the groups' channels.

    Raises:
        ModelError: the model's image size is open, or a layer's cost is not known.
    """
    macs = macs_by_layer(graph.model)
    layers = [layer for layer in graph.model.layers if layer.weights]
    return {layer.name: _layer_size(layer, graph, macs.get(layer.name, 0)) for layer in layers}


def _layer_size(layer: Any, graph: ChannelGraph, macs: int) -> LayerSize:
    member = graph.members.get(layer.name)
    if member is None:
        return LayerSize((Tensor((), macs, 0), Tensor((), 0, _layer_bytes(layer))))
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    positions = macs // sum(prod(kernel.shape) for kernel in kernels) if kernels else 0
    tensors = []
    for i, weight in enumerate(layer.weights):
        rate = positions if "kernel" in weight.name else 0
        tensors.append(Tensor(_lengths(member, i, graph), rate, _bytes_each(layer, weight)))
    if _lacks_bias(layer):
        tensors.append(Tensor((_length(member.out, graph),), 0, _BIAS_BYTES))
    return LayerSize(tuple(tensors))


def _lengths(member: Member, weight: int, graph: ChannelGraph) -> tuple[Length, ...]:
    lengths = [Length(int(side)) for side in member.layer.weights[weight].shape]
    for cut in member.slices:
        if cut.weight == weight:
            lengths[cut.axis] = _length(cut.ids, graph)
    return tuple(lengths)


def _length(ids: Ids, graph: ChannelGraph) -> Length:
    places = np.bincount(graph.group_of[ids] + 1, minlength=len(graph.groups) + 1).tolist()
    parts = [(g, n // len(g)) for g, n in zip(graph.groups, places[1:], strict=True) if n]
    fixed = places[0] + sum(len(g) * times for g, times in parts if g.locked)
    return Length(fixed, tuple((g.name, times) for g, times in parts if not g.locked))
