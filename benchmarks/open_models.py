"""The models that a script is asked about, opened and checked as `bloodedge evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.evaluate import check_fit
from bloodedge.deploy.predict import LoadedModel, open_model
from bloodedge.references import find_all
from bloodedge.text import printable


def open_models(names: Sequence[str], data: Dataset) -> dict[str, LoadedModel]:
    """Return the models by the names that tables give them; an export run means all its files.

    Of several that have one name, all but the first are numbered.

    Args:
        names: runs, `.keras` or `.tflite` files, or models of the zoo.
        data: what they will be asked about.

    Raises:
        ModelError: one is unknown or damaged, or does not fit the data.
    """
    found = find_all(names)
    if not all(reference.is_tflite for reference in found):
        use_backend()
    opened = []
    for reference in found:
        model = open_model(reference)
        check_fit(model, data)
        opened.append(model)
    return dict(zip(_numbered([printable(one.name) for one in found]), opened, strict=True))


def _numbered(names: Sequence[str]) -> list[str]:
    """Return names of which no two are alike; a number may make one that is there already."""
    taken = set(names)
    seen: set[str] = set()
    numbered = []
    for name in names:
        free = (f"{name} ({number})" for number in count(2))
        one = next(n for n in free if n not in taken) if name in seen else name
        seen.add(name)
        taken.add(one)
        numbered.append(one)
    return numbered
