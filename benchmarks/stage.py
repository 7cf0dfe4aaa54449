"""`bloodedge benchmark`: accuracy and latency of TFLite models on this machine, as a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.host import BenchmarkConfig, check_timing, run_benchmark
from bloodedge.benchmarks.model_work import known_work
from bloodedge.benchmarks.profile.files import try_profiles
from bloodedge.benchmarks.profile.litert import measured, profile_here
from bloodedge.benchmarks.profile.table import Profile
from bloodedge.benchmarks.result import BenchmarkResult, load_result
from bloodedge.benchmarks.runner import journal_path
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, ModelError
from bloodedge.files import atomic_path, read_json, write_json
from bloodedge.references import ModelReference, find_models
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, check_name, open_resumable
from bloodedge.text import some

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESULT_FILE = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkStageConfig:
    """What `bloodedge benchmark` measures.

    Attributes:
        models: runs, files or zoo names; an export run means all its variants.
        name: the run to write.
        images: how many test images the accuracy is measured on, balanced; 0 is all.
        threads: thread counts; 0 is every core.
        repeats: fresh processes for each model and thread count; by default the runner's 5.
        seconds: the least time of timed inferences in each; by default the runner's 2.
        quick: a rough look, whose repeats and seconds are the runner's own.
        seed: fixes the draw of images.
        force: replace a run of that name.
        profile: whether to find out where each model's time goes, by operator.
        resume: continue an interrupted run.

    Raises:
        ConfigError: a value out of range, or repeats or seconds of a quick look.
        RunError: the name cannot be a run's.
    """

    models: tuple[str, ...]
    name: str
    images: int = 0
    threads: tuple[int, ...] = (1, 0)
    repeats: int | None = None
    seconds: float | None = None
    quick: bool = False
    seed: int = 0
    force: bool = False
    profile: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        check_asked(self.models, self.name, self.images)
        check_timing(self.threads, **self.timing())
        if self.quick and self.timing():
            given = " and ".join(f"--{key}" for key in self.timing())
            raise ConfigError(
                f"--quick with {given}", expected="one of them: a quick look here has its own"
            )

    def timing(self) -> dict[str, Any]:
        """Return the repeats and seconds that were chosen; of others the runner decides."""
        timing = {"repeats": self.repeats, "seconds": self.seconds}
        return {key: value for key, value in timing.items() if value is not None}


def check_asked(models: Sequence[str], name: str, images: int) -> None:
    """Refuse what cannot be measured anywhere.

    Raises:
        ConfigError: no model, or a number of images below 0.
        RunError: the name cannot be a run's.
    """
    check_name(name)
    if not models:
        raise ConfigError("no model to benchmark", fix="name a run or a .tflite file")
    if images < 0:
        raise ConfigError(f"--images {images}", expected="0 (all) or more")


def benchmark(config: BenchmarkStageConfig, data: Dataset) -> tuple[Run, BenchmarkResult]:
    """Measure the models and write a run folder with the runner's `benchmark.json`.

    After Ctrl-C the run holds what is complete, as on every other device. What was measured before
    anything else ended it lies in the partial folder, from which `resume` continues.

    Raises:
        ModelError: a name means no TFLite model.
        RunError: the run exists, or was interrupted and is not to be continued.
        ConfigError, DataError: see `bloodedge.benchmarks.host.run_benchmark`.
        KeyboardInterrupt: Ctrl-C before anything was complete, or in the place of a finished run.
    """
    found = [reference for name in config.models for reference in _tflite_models(name)]
    models = {reference.path.resolve(): reference for reference in found}
    parents = {name: models[path].sha256 for path, name in _roles(tuple(models)).items()}
    watch = Stopwatch()
    opened = open_resumable(config, reads=parents.values())
    with opened as run, _only_measured_left(run.path):
        continued = journal_path(run.path / RESULT_FILE).exists()
        sample = run.path / ".sample.npz"
        _write_sample(sample, data, config.images, config.seed)
        facts = run.path / ".facts.json"
        write_json(facts, {"models": known_work({str(path): path for path in models})})
        result = _measure(_runner_config(config, tuple(models), sample, facts, run.path), run)
        sample.unlink()
        facts.unlink()
        used = _timing_used(result)
        if config.profile and result.complete:
            seconds = 0.5 if config.quick else used["seconds"]
            try_profiles(lambda: _profiles(result, tuple(models), seconds), run.path)
        manifest = benchmark_manifest(run.name, config, data, parents, result, watch)
        settings = {**manifest.config, **used}
        manifest = replace(manifest, config=settings, resumed=int(continued))
        # Only now: until then it gives the result again, and it leaves room for the manifest.
        journal_path(result.path).unlink(missing_ok=True)
        return run.commit(manifest), result


@contextmanager
def _only_measured_left(folder: Path) -> Iterator[None]:
    """Leave nothing of a measurement that fails but what the runner can go on from."""
    try:
        yield
    except BaseException:
        for path in list(folder.glob("*")):
            if path != journal_path(folder / RESULT_FILE):
                path.unlink()
        raise


def _measure(config: BenchmarkConfig, run: RunFolder) -> BenchmarkResult:
    """Return what was measured; after Ctrl-C what is complete, unless a finished run is there."""
    try:
        return run_benchmark(config)
    except KeyboardInterrupt:
        found = load_result(config.out) if config.out.is_file() else None
        if found is None or not found.rows:
            if found is not None and not config.resume:
                # Nothing was measured that one could go on from.
                journal_path(config.out).unlink(missing_ok=True)
            raise
        if run.final.exists():
            say(f"{run.final} stays as it was: a part does not replace it")
            say("the same with --force --resume goes on")
            raise
    say("keeping what is complete")
    return found


def _timing_used(result: BenchmarkResult) -> dict[str, Any]:
    """Return the repeats and seconds that the runner says it used."""
    used = read_json(result.path)["config"]
    return {key: used[key] for key in ("repeats", "seconds")}


def _profiles(result: BenchmarkResult, paths: Sequence[Path], seconds: float) -> list[Profile]:
    """Profile what could be measured, with the first number of threads, and only now.

    The runner names a model by its file's name, or by its path where two have the same.
    """
    good, threads = measured(result)
    names = {path: str(path) if str(path) in good else path.name for path in paths}
    named = {name: path for path, name in names.items() if name in good}
    return profile_here(named, threads, seconds)


def benchmark_manifest(
    name: str,
    config: DataclassInstance,
    data: Dataset,
    parents: Mapping[str, str],
    result: BenchmarkResult,
    watch: Stopwatch,
) -> Manifest:
    """Return the manifest of a run that holds a benchmark's result, wherever it was measured.

    Args:
        name: the run's.
        config: the command's settings; its `seed` drew the images.
        data: where the images are from.
        parents: each model's SHA-256 by a name that no other has.
        result: what was measured.
        watch: started when the work began.
    """
    settings = asdict(config)
    return Manifest(
        kind="benchmark",
        name=name,
        config=settings,
        data=data.describe(),
        parents=parents,
        model={"class_names": list(data.class_names)},
        metrics={"images": _images_scored(result), "rows": len(result.rows)},
        seed=settings["seed"],
        duration_s=watch.seconds(),
    )


def _images_scored(result: BenchmarkResult) -> int:
    """Return how many images each accuracy counts at least; 0 where there is none.

    A quick look classifies fewer than the sample holds.
    """
    return min((row.images for row in result.rows if row.accuracy is not None), default=0)


def told_apart(paths: Sequence[Path]) -> dict[Path, str]:
    """Return each file's name; two runs may hold files of one, which get their folder's in front.

    Folders may have one name, too: then these are not all different.
    """
    plain = Counter(path.name for path in paths)
    longer = {path: f"{path.resolve().parent.name}-{path.name}" for path in paths}
    return {path: longer[path] if plain[path.name] > 1 else path.name for path in paths}


def _roles(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each file, as a bundle has it; the whole path where that is another's."""
    names = told_apart(paths)
    taken = Counter(names.values())
    return {path: str(path) if taken[name] > 1 else name for path, name in names.items()}


def _runner_config(
    config: BenchmarkStageConfig, paths: tuple[Path, ...], sample: Path, facts: Path, folder: Path
) -> BenchmarkConfig:
    return BenchmarkConfig(
        paths,
        sample,
        folder / RESULT_FILE,
        config.threads,
        seed=config.seed,
        quick=config.quick,
        force=True,
        facts=facts,
        resume=config.resume,
        keep_journal=True,
        **config.timing(),
    )


def _tflite_models(name: str) -> list[ModelReference]:
    found = [reference for reference in find_models(name) if reference.is_tflite]
    if not found:
        raise ModelError(
            f"{name!r} is no TFLite model", fix=f"bloodedge export {name} --tflite makes them"
        )
    return found


def _write_sample(path: Path, data: Dataset, images: int, seed: int) -> None:
    test, index = data["test"], sample_indices(data, images, seed)
    with atomic_path(path) as temporary:
        write_sample(temporary, test.images[index], test.labels[index], data.class_names)


def write_sample(
    file: Path | BinaryIO,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> None:
    """Write a sample as the runner reads it: images, labels, and the names of the classes.

    Args:
        file: where to, an `.npz`.
        images: `(N, H, W, 3)`.
        labels: `(N,)`, each an index of `class_names`.
        class_names: `(C,)`.
    """
    np.savez(file, images=images, labels=labels, class_names=np.array(class_names, dtype=np.str_))


def sample_indices(data: Dataset, images: int, seed: int) -> NDArray[np.int64]:
    """Return which test images a device is to classify, sorted, and say which classes have none.

    Args:
        data: whose test images.
        images: how many, from all classes alike; 0 for all.
        seed: fixes the draw.
    """
    labels = data["test"].labels
    index = balanced_indices(labels, images or len(labels), seed)
    lacking = set(np.unique(labels).tolist()) - set(labels[index].tolist())
    if lacking:
        names = some([data.class_names[i] for i in sorted(lacking)], 5)
        least = len(np.unique(labels))
        say(f"--images {images} leaves out {names}: {least} or more show every class")
    return index


def balanced_indices(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return indices `(min(count, N),)`, sorted, drawn one class after the other: none is left out.

    Args:
        labels: `(N,)`.
        count: how many to draw.
        seed: fixes the draw.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        members = order[labels[order] == c]
        rank[members] = np.arange(len(members))
    chosen = order[np.argsort(rank[order], kind="stable")][:count]
    return np.sort(chosen)
