"""Profile models on this machine, by the profiler inside of ai-edge-litert.

Its Python interface does not offer it, its C interface does: a child process opens the library of
the installed package, runs the model with it, and prints the table; see `litert_child.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bloodedge.benchmarks.fields import MAX_US, number
from bloodedge.benchmarks.profile.table import Operator, Profile, parse
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.runner import one_line
from bloodedge.console import say
from bloodedge.deploy.runtimes import version_of

CHILD = Path(__file__).with_name("litert_child.py")
RUNTIME = "ai_edge_litert"
_TIMEOUT_S = 310.0
_MAX_SUMMARIES = 1000


def profile_here(models: Mapping[str, Path], threads: int, seconds: float) -> list[Profile]:
    """Return a profile of each model that can be profiled; of others a line says why not.

    Ctrl-C ends only this: what was measured before, and the profiles so far, are kept.

    Args:
        models: the files by name.
        threads: how many threads to use, bound to as many CPUs.
        seconds: how long to run each with the profiler.
    """
    found = []
    for name, path in models.items():
        try:
            found.append(profile_model(name, path, threads, seconds))
        except ValueError as error:
            say_why(name, error)
        except KeyboardInterrupt:
            say(f"{name} and what comes after it: not profiled; keeping what is complete")
            break
    return found


def measured(result: BenchmarkResult) -> tuple[list[str], int]:
    """Return the models that could be measured, and the number of threads to profile them with."""
    good = [row for row in result.rows if not row.error]
    return list(dict.fromkeys(row.model for row in good)), good[0].threads if good else 1


def say_why(name: str, why: object) -> None:
    """Say in a line that a model has no profile."""
    say(f"{name}: no profile by operator: {why}")


def profile_model(name: str, path: Path, threads: int, seconds: float) -> Profile:
    """Return the profile of one model.

    Raises:
        ValueError: this LiteRT gives none, or cannot run the model.
    """
    # Not with -P: the child is a file of its own and imports nothing from beside it.
    command = [sys.executable, str(CHILD), str(path), str(threads), str(seconds)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S + 10 * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError("LiteRT did not come to an end") from None
    out = done.stdout.decode("utf-8", "replace").splitlines()
    if not out:
        last = one_line(done.stderr.decode("utf-8", "replace")[-200:])
        raise ValueError(last or f"LiteRT ended with exit code {done.returncode}")
    runtime = f"{RUNTIME} {version_of('ai-edge-litert')}"
    return read_profile(name, threads, runtime, out[-1])


def read_profile(name: str, threads: int, runtime: str, answer: str) -> Profile:
    """Return the profile in what `litert_child.py` printed, here or on another device.

    Raises:
        ValueError: it says why there is none, or is damaged.
    """
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        raise ValueError("LiteRT gave no profile") from None
    if not isinstance(value, dict):
        raise ValueError("LiteRT gave no profile")
    if "refused" in value:
        raise ValueError(one_line(value["refused"]))
    summaries = value.get("summaries")
    if not isinstance(summaries, list) or len(summaries) > _MAX_SUMMARIES:
        raise ValueError(f"LiteRT gave no list of at most {_MAX_SUMMARIES} summaries")
    operators = middle([parse(str(summary)) for summary in summaries])
    return Profile(name, threads, runtime, operators, number(value, "invoke_us", most=MAX_US))


def middle(blocks: Sequence[tuple[Operator, ...]]) -> tuple[Operator, ...]:
    """Return each operator with the median of what it takes in several blocks of inferences.

    Args:
        blocks: what the profiler knew after each block, about all until then.

    Raises:
        ValueError: it did not see the same operators each time.
    """
    if len({tuple(operator.kind for operator in block) for block in blocks}) != 1:
        raise ValueError("the profiler saw other operators each time")
    return tuple(
        replace(found[-1], us=median(_alone(found))) for found in zip(*blocks, strict=True)
    )


def _alone(found: Sequence[Operator]) -> list[float]:
    """Return what an operator took in each block alone, in microseconds for one inference."""
    values, before, runs = [], 0.0, 0
    for operator in found:
        if operator.runs <= runs:
            raise ValueError("the profiler counted no inferences")
        total = operator.us * operator.runs
        # The shares are rounded.
        values.append(max(0.0, total - before) / (operator.runs - runs))
        before, runs = total, operator.runs
    return values
