"""How much of a model may stay, and the greedy search for the channels that matter least."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels.importance import Scores
from bloodedge.compress.channels.size import Counts, LayerSize
from bloodedge.errors import ConfigError

STEP = 8
_UNITS = {"macs": "of the MACs", "kb": "KB of int8 weights", "ratio": "of the channels"}


@dataclass(frozen=True)
class Budget:
    """What the pruned model may cost at most.

    Attributes:
        kind: `macs`: MACs as a share of the source's; `kb`: int8 weights in 1000 bytes, as
            `size.py` counts them; `ratio`: channels as a share of those that can be cut.
        value: the limit.

    Raises:
        ConfigError: a value that is no limit.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in _UNITS:
            raise ConfigError(f"a budget of {self.kind}", expected=", ".join(_UNITS))
        if self.kind == "kb" and not 0 < self.value < 1e9:
            raise ConfigError(f"--kb {self.value}", expected="more than 0")
        if self.kind != "kb" and not 0 < self.value < 1:
            raise ConfigError(f"--{self.kind} {self.value}", expected="between 0 and 1")

    def describe(self, value: float) -> str:
        """Return a value of this kind in words."""
        return f"{value:.4g} {_UNITS[self.kind]}"


@dataclass(frozen=True)
class Gauge:
    """Costs in the unit of one budget.

    Attributes:
        budget: the limit.
        sizes: every layer's cost.
        full: how many channels each group of the source has.
        free: the groups that can be cut.
    """

    budget: Budget
    sizes: Mapping[str, LayerSize]
    full: Counts
    free: tuple[str, ...]

    def layers_of(self, group: str) -> list[str]:
        """Return the layers whose cost depends on a group."""
        return [name for name, size in self.sizes.items() if group in size.groups]

    def cost(self, layers: Iterable[str], counts: Counts) -> int:
        """Return what layers cost, in MACs or bytes."""
        sizes = [self.sizes[name] for name in layers]
        macs = self.budget.kind == "macs"
        return sum(size.macs(counts) if macs else size.bytes(counts) for size in sizes)

    def total(self, counts: Counts) -> int:
        """Return what the model costs, in MACs, bytes or channels that can be cut."""
        if self.budget.kind == "ratio":
            return sum(counts[group] for group in self.free)
        return self.cost(self.sizes, counts)

    @cached_property
    def unit(self) -> int:
        """What the budget's 1 stands for."""
        return 1000 if self.budget.kind == "kb" else max(1, self.total(self.full))

    @property
    def limit(self) -> float:
        """The largest total that meets the budget; the factor forgives the last bit."""
        return self.budget.value * self.unit * (1 + 1e-12)

    def saving(self, group: str, counts: Counts, layers: list[str]) -> int:
        """Return what a group's next step down saves; `layers` depend on it."""
        left = next_down(counts[group])
        if self.budget.kind == "ratio":
            return counts[group] - left
        return self.cost(layers, counts) - self.cost(layers, {**counts, group: left})


def next_down(count: int) -> int:
    """Return the next smaller multiple of 8."""
    return (count - 1) // STEP * STEP


def _next_up(count: int, full: int) -> int:
    """Return what `next_down` led to a count from, in a group that had so many."""
    return min(full, count + STEP)


def floor_of(size: int, share: float) -> int:
    """Return the fewest channels a group may keep: a multiple of 8, at least 8 and its share."""
    return min(size, max(STEP, math.ceil(size * share / STEP) * STEP))


def search(gauge: Gauge, scores: Scores, floor: float) -> dict[str, int]:
    """Return how many channels each group keeps.

    Step by step that group gives up its least important channels, down to the next multiple of 8,
    that loses least for what their removal saves. A group of importance S of which s is left has
    lost `S (S / s - 1)`: at first what its channels matter, more the thinner it gets. Costs are
    products of neighbours' channels, so that a sum, or a logarithm, would as soon make every
    other layer a bottleneck. A last step that saves more than was needed leaves room: what fits
    is given back.

    Args:
        gauge: the budget and what counts.
        scores: the importance of each channel of each group that can be cut.
        floor: the share of its channels that a group keeps at least.

    Raises:
        ConfigError: the budget cannot be met, or the source meets it already.
    """
    counts = dict(gauge.full)
    floors = {g: floor_of(counts[g], floor) for g in gauge.free}
    _check_reachable(gauge, {**counts, **floors})
    layers = {g: gauge.layers_of(g) for g in gauge.free}
    # How much importance a group has with so many channels, the best ones.
    worth = {g: np.append(0.0, np.cumsum(np.sort(scores[g])[::-1])) for g in gauge.free}

    def price(group: str) -> float:
        before, left = counts[group], next_down(counts[group])
        if left < floors[group]:
            return math.inf
        lost = _loss(worth[group], left) - _loss(worth[group], before)
        return lost / max(1, gauge.saving(group, counts, layers[group]))

    prices = {g: price(g) for g in gauge.free}
    total = gauge.total(counts)
    while total > gauge.limit:
        cheapest = min(prices, key=lambda g: prices[g])
        total -= gauge.saving(cheapest, counts, layers[cheapest])
        counts[cheapest] = next_down(counts[cheapest])
        # Removing channels changes what those in the same layers would save.
        near = {g for name in layers[cheapest] for g in gauge.sizes[name].groups}
        prices |= {g: price(g) for g in near & prices.keys()}
    return _given_back(gauge, counts, worth, layers)


def _given_back(
    gauge: Gauge,
    counts: Counts,
    worth: Mapping[str, NDArray[np.float64]],
    layers: Mapping[str, list[str]],
) -> dict[str, int]:
    """Return the counts with every step undone that the budget has room for, the dearest first.

    Args:
        gauge: the budget and what counts.
        counts: how many channels each group has, within the budget.
        worth: the importance of each group's best channels, by how many.
        layers: those that depend on each group.
    """
    counts = dict(counts)
    total = gauge.total(counts)

    def gain(group: str) -> float:
        now, more = counts[group], _next_up(counts[group], gauge.full[group])
        return _loss(worth[group], now) - _loss(worth[group], more)

    cut = [g for g in gauge.free if counts[g] < gauge.full[g]]
    while cut:
        dearest = max(cut, key=gain)
        more = _next_up(counts[dearest], gauge.full[dearest])
        cost = gauge.saving(dearest, {**counts, dearest: more}, layers[dearest])
        fits = total + cost <= gauge.limit
        if fits:
            total += cost
            counts[dearest] = more
        # What does not fit never will: costs only rise with the neighbours' channels.
        if not fits or more == gauge.full[dearest]:
            cut.remove(dearest)
    return counts


def _loss(worth: NDArray[np.float64], left: int) -> float:
    """Return `S (S / s - 1)`; nothing matters in a group without any importance."""
    whole, rest = float(worth[-1]), float(worth[left])
    return whole * (whole / rest - 1) if rest else 0.0


def _check_reachable(gauge: Gauge, least: Counts) -> None:
    budget, now, smallest = gauge.budget, gauge.total(gauge.full), gauge.total(least)
    if not gauge.free:
        raise ConfigError(
            "no layer of the model can lose channels",
            expected=f"one with more than {STEP} that nothing else fixes",
        )
    if now <= gauge.limit:
        raise ConfigError(
            f"the model has {budget.describe(now / gauge.unit)} already",
            expected=f"--{budget.kind} below that",
        )
    if smallest > gauge.limit:
        raise ConfigError(
            f"--{budget.kind} {budget.value:g} cannot be met: the smallest reachable is "
            f"{budget.describe(_rounded_up(smallest / gauge.unit))}",
            fix="ask for more, or lower --floor",
        )


def _rounded_up(value: float) -> float:
    """Return a value to the four digits that are shown, never less than it is."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return math.ceil(value / step) * step
