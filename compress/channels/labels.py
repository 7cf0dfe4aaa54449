"""Labels of channels: equal where channels must be kept or removed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """The labels along the last axis of a tensor.

    Attributes:
        ids: `(C,)` labels.
        means: `(C,)` for a channel that is a mean over others, which mean; -1 for the rest.
        shifts: `(C,)` for a channel that may not be zero where the layers that make it give zero,
            as behind a sigmoid, the number of what made it so; -1 for the rest.
        source: the layer whose output this is and nothing else, if batch norm alone takes it;
            empty after any other layer.
    """

    ids: Ids
    means: Ids
    shifts: Ids
    source: str = ""

    @property
    def holds_means(self) -> bool:
        """Whether a channel is a mean over channels."""
        return bool((self.means >= 0).any())


def channels(
    ids: Ids, means: Ids | None = None, shifts: Ids | None = None, source: str = ""
) -> Channels:
    """Return channels that are no means and stay zero, unless said otherwise."""
    none = np.full(len(ids), -1)
    return Channels(
        ids, none if means is None else means, none if shifts is None else shifts, source
    )


class Labels:
    """All labels of a model: a forest of equal ones, and why some cannot be removed.

    Attributes:
        refused: layers that are not cut, and why.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._locks: list[tuple[Ids, str]] = []
        self._means: list[Ids] = []
        self._shifters: list[str] = []
        self.refused: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Ids:
        """Return `count` labels unlike any other."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, label: int) -> int:
        """Return the one label that stands for all that are equal to this."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def unite(self, first: Ids, second: Ids) -> None:
        """Make labels equal, pair by pair."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self._parent[high] = low

    def lock(self, ids: Ids, reason: str) -> None:
        """Note that channels cannot be removed, and why; the first reason counts."""
        self._locks.append((ids, reason))

    def mean_over(self, ids: Ids) -> Channels:
        """Return the one channel that is the mean over others; it stays itself."""
        self._means.append(ids)
        label = self.fresh(1)
        self.lock(label, "a mean over channels is one channel")
        return channels(label, np.array([len(self._means) - 1]))

    def settle(self, x: Channels, name: str) -> None:
        """Keep the channels of every mean in `x`: the layer `name` does not scale with them."""
        for mean in set(x.means[x.means >= 0].tolist()):
            self.lock(self._means[mean], f"{name} would see another mean over fewer channels")

    def shift(self, x: Channels, name: str, where: NDArray[np.bool_]) -> Channels:
        """Return `x` with the places noted that are zero no more behind the layer `name`."""
        self._shifters.append(name)
        return replace(
            x, shifts=np.where(where & (x.shifts < 0), len(self._shifters) - 1, x.shifts)
        )

    def keep_shifted(self, x: Channels, name: str) -> None:
        """Keep the channels of `x` that would not be zero: the layer `name` adds channels up."""
        for number in sorted(set(x.shifts[x.shifts >= 0].tolist())):
            reason = f"{name} would miss what {self._shifters[number]} makes of zero"
            self.lock(x.ids[x.shifts == number], reason)

    def means(self) -> list[Ids]:
        """Return the channels that each mean is over, as roots."""
        return [self.roots(ids) for ids in self._means]

    def roots(self, ids: Ids) -> Ids:
        """Return the roots of labels."""
        return np.array([self.root(label) for label in ids.tolist()], dtype=np.int64)

    def locks(self) -> dict[int, str]:
        """Return why each locked root is locked."""
        found: dict[int, str] = {}
        for ids, reason in self._locks:
            for root in self.roots(ids).tolist():
                found.setdefault(root, reason)
        return found


def relabel(x: Channels, shape: tuple[int, ...], change: Any) -> Channels | None:
    """Return the labels of a tensor whose values are only moved, None if rows then differ.

    Args:
        x: the labels of its last axis.
        shape: its shape without the batch.
        change: moves the values of an array of that shape.
    """
    moved = (change(np.broadcast_to(v, shape)) for v in (x.ids, x.means, x.shifts))
    rows, means, shifts = (v.reshape(-1, v.shape[-1]) for v in moved)
    if (rows != rows[0]).any():
        return None
    # Rows of one channel may differ in this: where `x` holds it before a sigmoid and behind it.
    return channels(rows[0].copy(), means[0].copy(), shifts.max(axis=0))
