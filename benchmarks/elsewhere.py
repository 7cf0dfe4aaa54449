"""What drivers for other devices share: models and images to take there, rows to bring back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.bundle import bundle_files, bundle_models
from bloodedge.benchmarks.model_work import known_work
from bloodedge.benchmarks.profile.files import try_profiles
from bloodedge.benchmarks.profile.table import Profile
from bloodedge.benchmarks.result import SCHEMA, BenchmarkResult, load_result
from bloodedge.benchmarks.runner import combine, summarize
from bloodedge.benchmarks.stage import (
    RESULT_FILE,
    benchmark_manifest,
    check_asked,
    sample_indices,
)
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.files import write_json
from bloodedge.runs import Run, Stopwatch, open_run


@dataclass(frozen=True)
class Material:
    """What is measured, and on what.

    Attributes:
        models: the .tflite files by the name each has in the result.
        images: test images `(N, S, S, 3)`, uint8.
        labels: their classes `(N,)`.
        class_names: the classes, by label.
        title: of the data, for people.
        synthetic: whether the images were drawn by a program.
        pack: makes all of it a bundle: its files by name.
    """

    models: Mapping[str, Path]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    title: str
    synthetic: bool
    pack: Callable[[], Mapping[str, bytes]]


@dataclass(frozen=True)
class DriverConfig:
    """What every driver is told.

    Attributes:
        models: runs, files or zoo names; an export run means all its variants.
        name: the run's.
        images: how many test images the accuracy is measured on, balanced; 0 is all.
        repeats: how often each model is loaded and timed, in shuffled order.
        seconds: the least time of timed inferences in each repeat.
        seed: fixes the images and the order.
        force: replace a run of that name.

    Raises:
        ConfigError: a value out of range.
        RunError: the name cannot be a run's.
    """

    models: tuple[str, ...]
    name: str
    images: int = 400
    repeats: int = 3
    seconds: float = 1.0
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be measured, before anything is loaded."""
        check_asked(self.models, self.name, self.images)
        if not 1 <= self.repeats <= 100:
            raise ConfigError(f"--repeats {self.repeats}", expected="1 to 100")
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"--seconds {self.seconds}", expected="more than 0, at most 3600")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}", expected="0 or more")


@dataclass(frozen=True)
class Measured:
    """What a driver brings back.

    Attributes:
        complete: whether everything was measured.
        protocol: of `bloodedge.benchmarks.result.PROTOCOLS`.
        environment: the runtime and the device.
        rows: one for each model and way of running it, as in `benchmark.json`; none where nothing
            was measured.
        config: what the driver wants recorded beside the settings that all drivers share.
        profiles: where the time goes by operator, where asked for; kept beside the result.
        clean_up: from a driver that leaves its result on the device, removes it there; called once
            the run is safe here.
        more: what else stands in `benchmark.json`, such as `emulated`; the other fields come first.
    """

    complete: bool
    protocol: str
    environment: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]
    config: Mapping[str, Any] = field(default_factory=dict)
    profiles: Sequence[Profile] = ()
    clean_up: Callable[[], None] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Driver(Protocol):
    """A way to measure on another device: `bloodedge.benchmarks.ssh.driver.Ssh` is one."""

    def __call__(self, material: Material, config: DriverConfig, /) -> Measured:
        """Measure the material; after Ctrl-C, return what is complete.

        Raises:
            BloodedgeError: nothing was measured.
        """


def benchmark_elsewhere(
    config: DriverConfig, data: Dataset, driver: Driver
) -> tuple[Run, BenchmarkResult]:
    """Measure the models with a driver and write a run folder with its `benchmark.json`.

    Raises:
        ModelError: a name means no TFLite model, or one does not fit the data.
        DataError: nothing was measured.
        BloodedgeError: whatever the driver raises before it has measured anything, or the run
            cannot be written.
    """
    models = bundle_models(config.models, data)
    test = data["test"]
    index = sample_indices(data, config.images, config.seed)
    paths = {name: model.path for name, model in models.items()}
    fixed = data.class_names, data.title, data.synthetic
    pack = partial(bundle_files, models, data, index, config.seed)
    material = Material(paths, test.images[index], test.labels[index], *fixed, pack)
    work = known_work(paths)
    parents = {name: model.sha256 for name, model in models.items()}
    watch = Stopwatch()
    with open_run(config.name, force=config.force, reads=parents.values()) as run:
        measured = driver(material, config)
        clean_up = measured.clean_up
        if not measured.rows:
            if clean_up:
                clean_up()
            raise DataError("nothing was measured", fix="start again, and leave it until it ends")
        document = _document(measured, config, len(index), work)
        try:
            write_json(run.path / RESULT_FILE, document)
            found = load_result(run.path / RESULT_FILE)
            try_profiles(lambda: measured.profiles, run.path)
            manifest = benchmark_manifest(run.name, config, data, parents, found, watch)
            done = run.commit(manifest)
        except BaseException:
            if clean_up:
                say("what was measured is still on the device: the same command fetches it")
            else:
                _rescue(document, run.name)
            raise
    if clean_up:
        clean_up()
    return done, replace(found, path=done.path / RESULT_FILE)


def _document(
    measured: Measured, config: DriverConfig, images: int, work: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a driver brought as a result, with what is known here."""
    shared = {key: getattr(config, key) for key in ("repeats", "seconds", "seed")}
    works = {name: known["work"] for name, known in work.items()}
    return {
        **measured.more,
        "schema": SCHEMA,
        "complete": measured.complete,
        "protocol": measured.protocol,
        "config": {**shared, **measured.config},
        "environment": measured.environment,
        "sample": {"images": images},
        "rows": [{**row, "work": works.get(row["model"])} for row in measured.rows],
    }


def _rescue(document: Mapping[str, Any], name: str) -> None:
    """Keep a result that cannot become a run, and is nowhere else, where there may be room."""
    try:
        path = Path(mkdtemp(prefix=f"{name}-")) / RESULT_FILE
        write_json(path, document)
    except (BloodedgeError, OSError) as error:
        say(f"what was measured is lost: {error}")
    else:
        say(f"what was measured is in {path}: bloodedge report {path}")


def timed_row(
    runs: Sequence[Mapping[str, Any]],
    durations_us: Sequence[NDArray[np.float64]],
) -> dict[str, Any]:
    """Return a row's timings, by the runner's own statistics.

    Args:
        runs: each repeat's other figures, such as `load_ms`.
        durations_us: each repeat's durations `(n,)` in microseconds.
    """
    ns = [np.rint(1000 * us).astype(np.int64) for us in durations_us]
    full = [{**run, **summarize(one)} for run, one in zip(runs, ns, strict=True)]
    return {**combine(full, np.concatenate(ns)), "runs": full}


def score(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return accuracy and digest of predicted classes `(N,)`, as the runner records them."""
    return {
        "images": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "predictions_sha256": sha256(predicted.astype("<i8").tobytes()).hexdigest(),
    }
