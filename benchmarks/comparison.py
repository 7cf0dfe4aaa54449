"""Several ways to train the same thing, each with several seeds, as runs and as one table on val.

Every seed of a variant is an ordinary run: what was interrupted continues, what is there is not
trained again, or refused if it was made otherwise, and the table holds what has been run. Test is
not read.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bloodedge import interrupts
from bloodedge.backend import use_backend
from bloodedge.benchmarks.quantile import student_t
from bloodedge.compress.chain.link import Link
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError, ConfigError, RunError, in_words
from bloodedge.runs import is_finished, load_run, runs_root

_LAST_EPOCHS = 3


@dataclass(frozen=True)
class Variant:
    """One row of a comparison.

    Attributes:
        name: its name in the table.
        link: the settings of a seed's run, and what trains it.
    """

    name: str
    link: Callable[[int], Link]

    def run_name(self, seed: int) -> str:
        """Return the name of the run of a seed."""
        return self.link(seed).name


def run_missing(variants: Sequence[Variant], seeds: int, data: Dataset) -> None:
    """Train what is missing: all variants with the first seed, then with the next.

    Raises:
        RunError: a finished run of one of the names was made otherwise; nothing is trained then.
    """
    wanted = [(variant, seed) for seed in range(seeds) for variant in variants]
    for variant, seed in wanted:
        if is_finished(variant.run_name(seed)):
            _check_same(variant.link(seed), data)
    for variant, seed in wanted:
        if not is_finished(variant.run_name(seed)):
            variant.link(seed).made(data, force=False)


def _check_same(link: Link, data: Dataset) -> None:
    folder = runs_root() / link.name
    manifest = load_run(folder).manifest
    differences = [*link.settings_that_differ(manifest, data), *link.parents_that_differ(manifest)]
    if differences:
        raise RunError(
            f"{folder} was made otherwise: {', '.join(differences)}",
            fix="remove it to train it again, or set another BLOODEDGE_RUNS",
        )


def compare(variants: Sequence[Variant], seeds: int, base: str, data: Dataset | None) -> None:
    """Train what is missing, unless without `data` to show what is there, and print the table.

    Raises:
        RunError: a finished run was made otherwise, or what is there is of several data sets.
    """
    if data is not None:
        use_backend()
        run_missing(variants, seeds, data)
    title = title_of(v.run_name(seed) for v in variants for seed in range(seeds))
    print(table(variants, seeds, base))
    if title:
        print(f"\nVal accuracy on {title}.")


def title_of(names: Iterable[str]) -> str:
    """Return the title of the one data set of what is finished; empty where nothing is.

    Raises:
        RunError: the runs are of several.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name in filter(is_finished, names):
        about = load_run(runs_root() / name).manifest["data"]
        seen.setdefault(str(about.get("fingerprint")), (name, str(about.get("title", ""))))
    if len(seen) > 1:
        (first, title), (other, otherwise) = list(seen.values())[:2]
        raise RunError(
            f"{other} has other data, {otherwise}, than {first}, {title}",
            fix="remove the runs of one of the two, or set another BLOODEDGE_RUNS",
        )
    return next((title for _, title in seen.values()), "")


def evaluated_otherwise(manifest: Mapping[str, Any], sha256: str, fingerprint: str) -> list[str]:
    """Return how an evaluation differs from one of a file on test of a data set, in words."""
    found = [] if manifest.get("parents") == {"model": sha256} else ["of another training or file"]
    found += [] if manifest["data"].get("fingerprint") == fingerprint else ["of other images"]
    return found + ([] if "test" in manifest["metrics"] else ["not on test"])


def table(variants: Sequence[Variant], seeds: int, base: str) -> str:
    """Return the comparison as Markdown.

    Beside the accuracy of the epoch that val chose stands the loss over the last three epochs,
    which is less noisy. Differences are to the variant named `base`, between runs of one seed, with
    Student's 95 % interval.
    """
    scores = {v.name: _scores(v, seeds) for v in variants}
    lines = [
        "| variant | seeds | val accuracy, % | lowest to highest | "
        f"against {base} [95 %] | val loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in scores.items():
        if not found:
            lines.append(f"| {name} | 0 | not run yet | | | |")
            continue
        accuracy, losses = zip(*found.values(), strict=True)
        pairs = [found[s][0] - scores[base][s][0] for s in found if s in scores.get(base, {})]
        against = "" if name == base else difference(pairs)
        lines.append(
            f"| {name} | {len(found)} | {mean(accuracy):.2f} | "
            f"{min(accuracy):.2f} to {max(accuracy):.2f} | {against} | {mean(losses):.4f} |"
        )
    return "\n".join(lines)


def difference(pairs: Sequence[float]) -> str:
    """Return the mean of paired differences in words, of two or more with its interval."""
    if not pairs:
        return ""
    if len(pairs) == 1:
        return f"{pairs[0]:+.2f}"
    low, high = interval(pairs)
    return f"{mean(pairs):+.2f} [{low:+.2f}, {high:+.2f}]"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of two or more."""
    reach = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - reach, mean(values) + reach


def _scores(variant: Variant, seeds: int) -> dict[int, tuple[float, float]]:
    """Return val accuracy in percent and the last epochs' val loss of the seeds that were run."""
    names = {seed: variant.run_name(seed) for seed in range(seeds)}
    return {s: score(runs_root() / name) for s, name in names.items() if is_finished(name)}


def score(folder: Path) -> tuple[float, float]:
    """Return a run's val accuracy in percent and its mean val loss over the last epochs."""
    with (folder / "history.csv").open(newline="") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    accuracy = load_run(folder).manifest["metrics"]["val"]["accuracy"]
    return 100 * accuracy, mean(losses[-_LAST_EPOCHS:])


def chosen(names: str, known: Sequence[str], what: str) -> list[str]:
    """Return the names of a list with commas.

    Raises:
        ConfigError: one of them is unknown.
    """
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"no {what} {', '.join(unknown)}", expected=", ".join(known))
    return wanted


def exit_code(script: Callable[[], int | None]) -> int:
    """Run a script and return its exit code; an error or a stop is one line, not a traceback."""
    try:
        with interrupts.orderly_stops():
            return script() or 0
    except BloodedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it can", file=sys.stderr)
        return interrupts.exit_code()
