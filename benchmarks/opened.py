"""The models that a script is asked about, opened and checked as `bloodedge evaluate` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.evaluate import check_fit
from bloodedge.deploy.predict import LoadedModel, open_model, printable
from bloodedge.references import find_all


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
    seen: Counter[str] = Counter()
    models = {}
    for reference in found:
        model = open_model(reference)
        check_fit(model, data)
        name = printable(reference.name)
        seen[name] += 1
        models[name if seen[name] == 1 else f"{name} ({seen[name]})"] = model
    return models
