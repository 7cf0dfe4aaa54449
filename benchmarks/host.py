"""Run `runner.py` on this machine.

The runner stays a program of its own, started with this Python: what a laptop measures then
goes through the same file as what a Raspberry Pi measures, and no TensorFlow that happens to be
loaded here is in the measured process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodedge.benchmarks.result import BenchmarkResult, load_result
from bloodedge.benchmarks.runner import REPEATS_LIMIT
from bloodedge.children import run_child
from bloodedge.errors import ConfigError, DataError

RUNNER = Path(__file__).with_name("runner.py")
_REPEATS, _SECONDS = 5, 2.0
_MAX_SECONDS = 86400.0
MAX_THREADS = 1024


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure on this machine.

    Attributes:
        models: the .tflite files.
        sample: an .npz with uint8 `images` (N, H, W, 3) and integer `labels` (N,), or none,
            which measures on random images and gives no accuracy.
        out: the JSON to write.
        threads: thread counts; 0 is every CPU.
        repeats: processes for each model and thread count.
        seconds: the least time of timed invokes in each process.
        seed: of the order and of the random images.
        quick: a rough look, with the runner's own short repeats and seconds.
        force: replace `out` where it exists.
        facts: a `bundle.json` with what the models cost, for their rows.
        resume: go on from the journal that an interrupted run left beside `out`.
        keep_journal: leave the journal of a complete run, too, from which `resume` gives the result
            again.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
    """

    models: tuple[Path, ...]
    sample: Path | None
    out: Path
    threads: tuple[int, ...] = (1, 0)
    repeats: int = _REPEATS
    seconds: float = _SECONDS
    seed: int = 0
    quick: bool = False
    force: bool = False
    facts: Path | None = None
    resume: bool = False
    keep_journal: bool = False

    def __post_init__(self) -> None:
        """Refuse what the runner could not do, before anything starts."""
        if not self.models or len(set(self.models)) < len(self.models):
            raise ConfigError(f"models {_names(self.models)}", expected="one or more, each once")
        check_timing(self.threads, self.repeats, self.seconds)
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed}", expected="0 or more")
        fields = type(self)
        if self.quick and (self.repeats, self.seconds) != (fields.repeats, fields.seconds):
            raise ConfigError(
                "quick sets repeats and seconds itself", fix="leave out quick, or both of them"
            )


def run_benchmark(config: BenchmarkConfig) -> BenchmarkResult:
    """Measure the models in fresh processes on this machine.

    A model that cannot be measured is a row with its `error`. Progress goes to stderr.

    Raises:
        ConfigError: `out` exists and `force` was not asked for, or the runner refused its
            arguments or the sample (its message on stderr says why).
        DataError: a model or the sample is missing, or the runner died.
        ChildError: a signal ended the runner.
        KeyboardInterrupt: Ctrl-C, a kill or a closed terminal, after the runner has written what is
            complete to `out`.
    """
    _check_files(config)
    fix = "give the same command with --resume"
    code = run_child(_command(config), "the benchmark runner", fix=fix, tied=True)
    if code == 130:
        raise KeyboardInterrupt
    if code == 2:
        raise ConfigError("the benchmark runner refused", fix="see its message above")
    if code not in (0, 1):
        raise DataError(f"the benchmark runner died with exit code {code}")
    return load_result(config.out)


def check_timing(
    threads: Sequence[int], repeats: int = _REPEATS, seconds: float = _SECONDS
) -> None:
    """Refuse what the runner would not measure.

    Raises:
        ConfigError: a thread count, a number of repeats or of seconds out of range.
    """
    check_threads(threads)
    if not 1 <= repeats <= REPEATS_LIMIT:
        raise ConfigError(f"repeats {repeats}", expected=f"1 to {REPEATS_LIMIT}")
    if not 0 < seconds <= _MAX_SECONDS:
        raise ConfigError(f"seconds {seconds}", expected="more than 0, at most 86400")


def check_threads(threads: Sequence[int], most: int = MAX_THREADS) -> None:
    """Refuse thread counts that no device could be asked for.

    Args:
        threads: the counts; 0 is every core.
        most: the largest that a driver takes.

    Raises:
        ConfigError: there is none, one is there twice, or one is not in 0..`most`.
    """
    asked = f"--threads {','.join(map(str, threads)) or 'none'}"
    if not threads:
        raise ConfigError(asked, expected="one count or more, 0 for every core")
    for count in threads:
        if not 0 <= count <= most:
            raise ConfigError(f"{asked}: {count}", expected=f"0 (every core) to {most}")
        if threads.count(count) > 1:
            raise ConfigError(f"{asked}: {count} is there twice", expected="each count once")


def _names(models: tuple[Path, ...]) -> str:
    return ", ".join(str(model) for model in models) or "none"


def _check_files(config: BenchmarkConfig) -> None:
    for path in (*config.models, *((config.sample,) if config.sample else ())):
        if not path.is_file():
            raise DataError(f"{path} does not exist")
    if config.out.exists() and not config.force:
        raise ConfigError(f"{config.out} exists", fix="choose another file, or ask to overwrite it")
    config.out.parent.mkdir(parents=True, exist_ok=True)


def _command(config: BenchmarkConfig) -> list[str]:
    # After `=`, as after `--` below, a path that starts with a dash is no option.
    command = [sys.executable, str(RUNNER), f"--out={config.out}", f"--seed={config.seed}"]
    # Killed, we can tell it nothing any more.
    command += ["--tied"]
    command += [f"--threads={','.join(str(count) for count in config.threads)}"]
    if config.quick:
        command += ["--quick"]
    else:
        command += [f"--repeats={config.repeats}", f"--seconds={config.seconds}"]
    if config.sample:
        command += [f"--sample={config.sample}"]
    if config.facts:
        command += [f"--facts={config.facts}"]
    if config.force:
        command += ["--force"]
    if config.resume:
        command += ["--resume"]
    if config.keep_journal:
        command += ["--keep-journal"]
    return [*command, "--", *(str(model) for model in config.models)]
