"""The plan: which channels stay, what that costs and saves, and why the rest cannot be cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bloodedge.compress.channels.budget import STEP, Budget, Gauge, floor_of, search
from bloodedge.compress.channels.graph import ChannelGraph, Group, Mask
from bloodedge.compress.channels.importance import Scores
from bloodedge.compress.channels.labels import Ids
from bloodedge.compress.channels.size import layer_sizes
from bloodedge.errors import ModelError


@dataclass(frozen=True)
class LayerPlan:
    """One layer before and after; `why_not` says what keeps it from being cut, if anything."""

    name: str
    channels: int
    channels_left: int
    macs: int
    macs_left: int
    bytes: int
    bytes_left: int
    why_not: str


@dataclass(frozen=True)
class Plan:
    """Which channels stay.

    Attributes:
        kept: the places that stay, sorted, of each group that is cut, by the group's name.
        layers: every layer with a kernel, in the order of computation.
    """

    kept: Mapping[str, Ids]
    layers: tuple[LayerPlan, ...]

    def totals(self) -> dict[str, int]:
        """Return MACs for one image and bytes of int8 weights, before and after."""
        names = ("macs", "macs_left", "bytes", "bytes_left")
        return {name: sum(getattr(layer, name) for layer in self.layers) for name in names}

    def summary(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {**self.totals(), "layers": [asdict(layer) for layer in self.layers]}

    def to_json(self) -> dict[str, Any]:
        """Return everything, the places that stay included."""
        return {**self.summary(), "kept": {name: ids.tolist() for name, ids in self.kept.items()}}


def make_plan(graph: ChannelGraph, scores: Scores, budget: Budget, floor: float) -> Plan:
    """Choose the channels to keep under a budget.

    Args:
        graph: what is coupled.
        scores: importance by group; groups that are not ranked are not cut.
        budget: what may stay.
        floor: the share of its channels that every group keeps at least.

    Raises:
        ConfigError: the budget cannot be met, or is met already.
        ModelError: the model's image size is open, or a layer's cost is not known.
    """
    whole = {group.name: _whole(group, scores, floor) for group in graph.groups}
    free = tuple(name for name, reason in whole.items() if not reason)
    full = {group.name: len(group) for group in graph.groups}
    counts = search(Gauge(budget, layer_sizes(graph), full, free), scores, floor)
    kept = {}
    for name in free:
        if counts[name] < full[name]:
            # Stable, so that equal scores are cut in the same order everywhere.
            worst_first = np.argsort(scores[name], kind="stable")
            kept[name] = np.sort(worst_first[full[name] - counts[name] :])
    return describe(graph, kept, whole)


def describe(
    graph: ChannelGraph, kept: Mapping[str, Ids], whole: Mapping[str, str] | None = None
) -> Plan:
    """Return the plan that keeps given places, each layer with its costs before and after.

    Args:
        graph: what is coupled.
        kept: the places that stay of each group that is cut.
        whole: why other groups are not cut, beside those that cannot be.

    Raises:
        ModelError: the places do not fit the model, or a layer's cost is not known.
    """
    _check_kept(graph, kept)
    full = {group.name: len(group) for group in graph.groups}
    counts = full | {name: len(places) for name, places in kept.items()}
    mask = graph.mask(kept)
    reasons = dict(graph.refused)
    for group in graph.groups:
        for layer in group.layers:
            reasons.setdefault(layer, (whole or {}).get(group.name, group.locked))
    rows = []
    for name, size in layer_sizes(graph).items():
        macs, after = size.macs(full), size.macs(counts)
        held, left = size.bytes(full), size.bytes(counts)
        if macs or held:
            channels = _channels(graph, name, mask)
            rows.append(LayerPlan(name, *channels, macs, after, held, left, reasons.get(name, "")))
    return Plan(kept, tuple(rows))


def _channels(graph: ChannelGraph, name: str, mask: Mask) -> tuple[int, int]:
    """Return the output channels of a layer, before and after."""
    if name in graph.members:
        out = graph.members[name].out
        return len(out), int(mask[out].sum())
    channels = int(graph.model.get_layer(name).output.shape[-1])
    return channels, channels


def _whole(group: Group, scores: Scores, floor: float) -> str:
    """Return why a group is kept whole, empty if it can be cut."""
    if group.locked:
        return group.locked
    if len(group) <= STEP:
        return f"{STEP} channels or fewer are kept"
    if group.name not in scores:
        return "nothing to rank its channels by"
    if floor_of(len(group), floor) == len(group):
        return "the floor keeps all of its channels"
    return ""


def _check_kept(graph: ChannelGraph, kept: Mapping[str, Ids]) -> None:
    groups = {group.name: group for group in graph.groups}
    for name, places in kept.items():
        if name not in groups or groups[name].locked or not _are_places(places, len(groups[name])):
            raise ModelError(f"the plan's channels of {name} do not fit {graph.model.name}")


def _are_places(places: Ids, size: int) -> bool:
    """Whether these are ascending places below `size`, at least one."""
    if places.ndim != 1 or len(places) == 0 or places.dtype.kind != "i":
        return False
    return bool((np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < size)
