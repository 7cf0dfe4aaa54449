"""Which images models misread, what they say instead, and which labels may be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Labels

# A likely label error: at least so many models, each at least so sure of one other class.
CONFIDENT = 0.9
MIN_MODELS = 2


@dataclass(frozen=True)
class Misread:
    """One image that at least one model misreads; classes are indices.

    Attributes:
        index: its place in the split.
        truth: its label.
        said: of each model, the class and its probability in 0..1.
        wrong: how many models do not say the label.
        other: the class that most of those say; of equals the one they are surer of.
        agree: how many models say it.
        likely_label_error: whether all models say it, each with at least `CONFIDENT`.
    """

    index: int
    truth: int
    said: dict[str, tuple[int, float]]
    wrong: int
    other: int
    agree: int
    likely_label_error: bool

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the recorded JSON."""
        return asdict(self) | {"said": {name: list(pair) for name, pair in self.said.items()}}


def find_errors(labels: Labels, said: Mapping[str, NDArray[np.float32]]) -> list[Misread]:
    """Return the misread images: likely label errors first, then those most models misread.

    Args:
        labels: `(N,)`.
        said: of each model `(N, C)` probabilities.
    """
    classes = {name: p.argmax(axis=1) for name, p in said.items()}
    any_wrong = np.zeros(len(labels), bool)
    for own in classes.values():
        any_wrong |= own != labels
    found = []
    for index in map(int, np.flatnonzero(any_wrong)):
        pairs = {
            name: (int(own[index]), round(float(said[name][index, own[index]]), 4))
            for name, own in classes.items()
        }
        found.append(_misread(index, int(labels[index]), pairs))
    return sorted(found, key=lambda m: (not m.likely_label_error, -m.wrong, -m.agree, m.index))


def _misread(index: int, truth: int, said: dict[str, tuple[int, float]]) -> Misread:
    others = [(c, p) for c, p in said.values() if c != truth]
    votes = Counter(c for c, _ in others)
    other = max(votes, key=lambda c: (votes[c], max(p for k, p in others if k == c)))
    unanimous = votes[other] == len(said) >= MIN_MODELS
    likely = unanimous and all(p >= CONFIDENT for _, p in others)
    return Misread(index, truth, said, len(others), other, votes[other], likely)


def pairs(misread: Sequence[Misread]) -> list[dict[str, Any]]:
    """Return which class is taken for which, by the number of images that any model so misreads.

    `by_model` counts the images of each model; `answers` is their sum, which breaks ties.
    """
    images: Counter[tuple[int, int]] = Counter()
    models: dict[tuple[int, int], Counter[str]] = {}
    for one in misread:
        images.update({(one.truth, c) for c, _ in one.said.values() if c != one.truth})
        for name, (c, _) in one.said.items():
            if c != one.truth:
                models.setdefault((one.truth, c), Counter())[name] += 1
    ranked = sorted(images, key=lambda pair: (-images[pair], -models[pair].total(), pair))
    return [
        {
            "truth": truth,
            "said": said,
            "images": images[truth, said],
            "answers": models[truth, said].total(),
            "by_model": dict(models[truth, said]),
        }
        for truth, said in ranked
    ]
