"""`bloodedge pipeline`: what a preset makes, how far it has come, and making the rest."""

from __future__ import annotations

from dataclasses import replace

from bloodedge.compress.chain.run import Planned, check_places, planned, run_chain
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.pipeline.estimate import estimate
from bloodedge.deploy.pipeline.plan import steps, trains
from bloodedge.deploy.pipeline.presets import Preset
from bloodedge.runs import Run


def plan(preset: Preset, data: Dataset) -> list[Planned]:
    """Return every step, how far it has come and how long it takes. Nothing is run.

    Raises:
        ConfigError: settings that cannot work together.
        RunError: a manifest is damaged.
    """
    links = steps(preset)
    found = zip(planned(links, data), estimate(links, data), strict=True)
    return [replace(step, seconds=seconds) for step, seconds in found]


def train_all(preset: Preset, data: Dataset, *, force: bool = False) -> list[Run]:
    """Do what any Keras backend can: train and fine-tune for int8.

    Finished runs are used as they are, interrupted ones continued.

    Args:
        preset: what to make.
        data: the images for every step.
        force: replace finished runs that were made otherwise, and start interrupted ones over.

    Raises:
        RunError: a finished run was made with other settings, data or parents; it says which. Or
            something else is where a run is to be.
        BloodedgeError: whatever a step raises; what was finished before stays.
    """
    links = steps(preset)
    if not force:
        # The places of the files as well, which are made later.
        check_places(links)
    return run_chain([link for link in links if trains(link)], data, force=force)


def finish_all(preset: Preset, data: Dataset, *, force: bool = False) -> list[Run]:
    """Do everything, which needs Keras on TensorFlow: as `train_all`, then files, gates and test.

    Raises:
        VerificationError: a file differs from its parent by more than its gate allows.
        BloodedgeError: as `train_all`.
    """
    return run_chain(steps(preset), data, force=force)
