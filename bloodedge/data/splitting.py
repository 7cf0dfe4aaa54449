"""Dividing labelled files into train, val and test: seeded, stratified, duplicates together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.errors import DataError
from bloodedge.text import counted

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
MIN_IMAGES = 3
_SEVERAL = -1


def divide(
    labels: NDArray[np.int64], digests: Sequence[str], names: Sequence[str], seed: int
) -> list[str]:
    """Give every image a split: of each class 10 % val, 20 % test (at least one), the rest train.

    Images with the same digest stay together. One that is filed under several classes goes to
    train, where a wrong label does not distort a result.

    Args:
        labels: class of each image, (N,).
        digests: what is the same for the same image, N of them.
        names: of the classes.
        seed: fixes the draw, 0 or more.

    Returns:
        N times `train`, `val` or `test`.

    Raises:
        DataError: a class has fewer than 3 different images.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        groups[digest].append(row)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        classes = {int(labels[row]) for row in rows}
        by_class[classes.pop() if len(classes) == 1 else _SEVERAL].append(rows)
    if torn := len(by_class[_SEVERAL]):
        say(f"warning: {counted(torn, 'image')} filed under several classes, taken for train")
    where = ["train"] * len(labels)
    for label, name in enumerate(names):
        own = by_class[label]
        if len(own) < MIN_IMAGES:
            raise DataError(
                f"class {name!r} has {len(own)} different images", expected=f"at least {MIN_IMAGES}"
            )
        for row, split in _deal(own, np.random.default_rng([seed, label])):
            where[row] = split
    return where


def _deal(groups: list[list[int]], rng: np.random.Generator) -> Iterable[tuple[int, str]]:
    """Yield (image, split) for one class, given its images grouped by content."""
    total = sum(len(group) for group in groups)
    room = {s: max(1, round(FRACTIONS[s] * total)) for s in ("test", "val")}
    drawn = [groups[i] for i in rng.permutation(len(groups))]
    # Smaller groups first (the sort keeps the drawn order otherwise): copies tend to train, and
    # with one group each to start with no split stays empty, however large the last ones are.
    drawn.sort(key=len)
    for turn, group in enumerate(drawn):
        split = ("test", "val", "train")[turn] if turn < MIN_IMAGES else ""
        split = split or next((s for s in room if len(group) <= room[s]), "train")
        if split in room:
            room[split] -= len(group)
        yield from ((row, split) for row in group)


def crossing(digests: Sequence[str], where: Sequence[str]) -> int:
    """Return how many different images occur in more than one split."""
    homes: dict[str, set[str]] = defaultdict(set)
    for digest, split in zip(digests, where, strict=True):
        homes[digest].add(split)
    return sum(len(splits) > 1 for splits in homes.values())
