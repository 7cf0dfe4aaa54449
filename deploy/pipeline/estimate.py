"""How long the steps of a pipeline take, from how long such steps have taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bloodedge.compress.chain.link import Link
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.pipeline.plan import QAT_STEP, TRAIN, trains
from bloodedge.runs import is_finished, load_run, runs_root
from bloodedge.train.config import FitConfig

# Seconds an epoch at the full size on two cores of an x86 server, medians of the recorded runs
# (`duration_s` in benchmarks/results/manifests), which had the machine not always to themselves.
EPOCH_S = {
    (TRAIN, "vgg16"): 376.0,
    (TRAIN, "cnn_se"): 13.7,
    (TRAIN, "cnn_se_nano"): 9.7,
    (TRAIN, "cnn_se_pico"): 6.6,
    (QAT_STEP, "cnn_se"): 9.9,
    (QAT_STEP, "cnn_se_nano"): 10.4,
    (QAT_STEP, "cnn_se_pico"): 6.4,
}
WHERE = "as it took on two CPU cores of a server, or here where such a run is finished"
_RECORDED_IMAGES, _RECORDED_SIZE = 11_959, 64
# An export or an evaluation of a student or a teacher.
_FILE_S, _LARGE_FILE_S, _LARGE_EPOCH_S = 4.0, 90.0, 100.0


def estimate(links: Sequence[Link], data: Dataset) -> list[float | None]:
    """Return the seconds that each step takes from its beginning; None where nobody knows.

    The time of a finished run of the same model, such as one with another seed, counts before what
    is recorded.
    """
    scale = len(data["train"]) / _RECORDED_IMAGES * (data.size / _RECORDED_SIZE) ** 2
    known = {key: seconds * scale for key, seconds in EPOCH_S.items()}
    of_run: dict[str, str] = {}
    for link in links:
        of_run[link.name] = _model(link, of_run)
        if trains(link) and (seconds := _measured(link, data)):
            known[link.step, of_run[link.name]] = seconds
    found: list[float | None] = []
    for link in links:
        model = of_run[link.name]
        if trains(link):
            each = known.get((link.step, model))
            found.append(None if each is None else each * _full_epochs(link.config.fit, data.size))
        else:
            large = known.get((TRAIN, model), 0.0) > _LARGE_EPOCH_S * scale
            found.append(_LARGE_FILE_S if large else _FILE_S)
    return found


def _model(link: Link, of_run: dict[str, str]) -> str:
    """Return the registered model that a step is about, from what it starts from."""
    if link.step == TRAIN:
        return str(link.config.model)
    return of_run.get(link.parent.partition("/")[0], "")


def _full_epochs(fit: FitConfig, size: int) -> float:
    """Return the epochs, those on smaller images by their share of the pixels."""
    return sum((fit.size_at(epoch, size) / size) ** 2 for epoch in range(fit.epochs))


def _measured(link: Link, data: Dataset) -> float | None:
    """Return the seconds that a full epoch of a finished run took, none that is not finished."""
    if not is_finished(link.name):
        return None
    manifest = load_run(runs_root() / link.name).manifest
    if manifest["data"].get("fingerprint") != data.fingerprint:
        return None
    seconds: Any = manifest.get("duration_s")
    return float(seconds) / _full_epochs(link.config.fit, data.size) if seconds else None
