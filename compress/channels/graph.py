"""The dependency graph: which channels of which layers must be removed together.

Every tensor of the Keras graph carries one label for each place of its last axis. Walking the
graph once, layer by layer, labels are made equal where channels are coupled: added, multiplied,
normalised. What is left equal at the end is one channel of the model; channels that the same
layers produce form a group. The separation into graph, importance and cut follows Torch-Pruning
(Fang et al. 2023, "DepGraph").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels.calls import Call
from bloodedge.compress.channels.labels import Channels, Ids, Labels, channels
from bloodedge.compress.channels.members import Member
from bloodedge.compress.channels.rules import RULES
from bloodedge.compress.walk import calls, graph_of
from bloodedge.errors import ModelError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Channels that the same layers produce; removing one removes it from all of these.

    Attributes:
        name: the first producing layer, in the order of computation.
        layers: every layer that produces these channels.
        channels: their labels, in the order of the first layer's outputs.
        locked: why none can be removed, empty if some can.
    """

    name: str
    layers: tuple[str, ...]
    channels: Ids
    locked: str

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class ChannelGraph:
    """What is coupled in a model.

    Attributes:
        model: the Keras model, which stays as it is.
        count: how many different channels there are, labelled from 0.
        members: what is cut of each layer, in the order of computation.
        groups: the channels by the layers that produce them.
        group_of: `(count,)` the place of each channel's group, -1 for channels in none.
        means: for each mean over channels, which.
        refused: layers that are not cut, and why.
    """

    model: Any
    count: int
    members: Mapping[str, Member]
    groups: tuple[Group, ...]
    group_of: Ids
    means: tuple[Ids, ...]
    refused: Mapping[str, str]

    def mask(self, kept: Mapping[str, Ids]) -> Mask:
        """Return which channels stay, given the places that stay in each group that is cut."""
        mask = np.ones(self.count, dtype=np.bool_)
        for group in self.groups:
            if group.name in kept:
                mask[group.channels] = False
                mask[group.channels[kept[group.name]]] = True
        return mask


def trace(model: Any) -> ChannelGraph:
    """Walk a functional or sequential model and return what is coupled in it.

    Raises:
        ModelError: its image size is open, it is no graph of layers, or it has a layer whose
            treatment of channels is not known.
    """
    labels = Labels()
    return _resolved(model, labels, _walk_all(model, labels))


def _walk_all(model: Any, labels: Labels) -> dict[str, Member]:
    graph = graph_of(model)
    members: dict[str, Member] = {}
    known: dict[int, Channels] = {}
    for tensor in graph.inputs:
        ids = labels.fresh(_shape(tensor)[-1])
        labels.lock(ids, "the image's channels")
        known[id(tensor)] = channels(ids)
    elsewhere = _taken_elsewhere(model)
    for node in calls(model):
        found, place = _walk(node, known, labels, members), id(node.output_tensors[0])
        known[place] = replace(found, source="") if place in elsewhere else found
    for tensor in graph.outputs:
        labels.lock(known[id(tensor)].ids, "the logits")
        labels.settle(known[id(tensor)], "the output")
    return members


def _taken_elsewhere(model: Any) -> set[int]:
    """Return the tensors, by `id`, that something else than batch norm takes."""
    taken = {id(tensor) for tensor in graph_of(model).outputs}
    for node in calls(model):
        if type(node.operation).__name__ != "BatchNormalization":
            taken.update(id(tensor) for tensor in node.input_tensors)
    return taken


def _walk(
    node: Any, known: Mapping[int, Channels], labels: Labels, members: dict[str, Member]
) -> Channels:
    op = node.operation
    rule = RULES.get(type(op).__name__)
    if rule is None or getattr(op, "data_format", "channels_last") == "channels_first":
        raise ModelError(
            f"how {op.name} ({type(op).__name__}) treats channels is unknown",
            expected="layers with a rule in compress/channels/rules.py, channels last",
            fix="add a rule for it there",
        )
    tensors = node.input_tensors
    values = (*node.arguments.args, *node.arguments.kwargs.values())
    call = Call(
        node,
        [known[id(tensor)] for tensor in tensors],
        [_shape(tensor) for tensor in tensors],
        _shape(node.output_tensors[0]),
        any(_is_array(value) for value in values),
        labels,
        members,
    )
    return rule(call)


def _is_array(value: Any) -> bool:
    """Return whether an argument of a call is an array and no tensor of the graph."""
    import keras

    return not isinstance(value, keras.KerasTensor) and len(getattr(value, "shape", ())) > 0


def _shape(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's shape without the batch.

    Raises:
        ModelError: a side is open.
    """
    shape = tuple(tensor.shape[1:])
    if not shape or None in shape:
        raise ModelError(
            "channels cannot be followed through images of any size",
            fix="build the model with a static image size",
        )
    return shape


def _resolved(model: Any, labels: Labels, members: dict[str, Member]) -> ChannelGraph:
    """Number the different channels from 0, and gather them into groups."""
    roots = labels.roots(np.arange(len(labels)))
    names, number = np.unique(roots, return_inverse=True)
    position = {int(root): i for i, root in enumerate(names)}
    locks = {position[root]: reason for root, reason in labels.locks().items()}
    for member in members.values():
        member.slices = [replace(s, ids=number[s.ids]) for s in member.slices]
        member.out = number[member.out]
    means = tuple(number[ids] for ids in labels.means())
    groups = _groups(members, locks)
    group_of = np.full(len(names), -1)
    for place, group in enumerate(groups):
        group_of[group.channels] = place
    return ChannelGraph(model, len(names), members, groups, group_of, means, labels.refused)


def _groups(members: Mapping[str, Member], locks: Mapping[int, str]) -> tuple[Group, ...]:
    makers: dict[int, tuple[str, ...]] = {}
    for member in members.values():
        if member.produces:
            for channel in member.out.tolist():
                makers[channel] = (*makers.get(channel, ()), member.name)
    found: dict[tuple[str, ...], list[int]] = {}
    for channel, layers in makers.items():
        found.setdefault(layers, []).append(channel)
    groups: dict[str, Group] = {}
    for layers, made in found.items():
        name, parts = layers[0], sum(group.layers[0] == layers[0] for group in groups.values())
        name = f"{name}:{parts + 1}" if parts else name
        reason = next((locks[channel] for channel in made if channel in locks), "")
        unique = tuple(dict.fromkeys(layers))
        groups[name] = Group(name, unique, np.array(made), reason)
    return tuple(groups.values())
