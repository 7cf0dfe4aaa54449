"""What a report is about: runs, results of devices, and folders where both were recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bloodedge.benchmarks.report.read import text
from bloodedge.benchmarks.result import SCHEMA
from bloodedge.errors import BloodedgeError, RunError
from bloodedge.files import read_json
from bloodedge.runs import MANIFEST, Run, load_run, runs_root

_JSON = "[!.]*.json"
# Kinds of run that have no model of their own, of which nobody misses a line.
_WITHOUT_MODEL = ("verify", "sensitivity")


class Sources(NamedTuple):
    """What is reported on, and what of it is damaged: name and reason."""

    runs: list[Run]
    results: list[Path]
    damaged: list[tuple[str, str]]


def named(names: Sequence[str]) -> Sources:
    """Return the runs and results of those names; one that is damaged does not cost the others.

    A folder that holds no run may hold manifests and results that were recorded, as JSON files.

    Raises:
        RunError: nothing is there by one of the names.
    """
    found = Sources([], [], [])
    for name in names:
        if Path(name).is_file():
            found.results.append(Path(name))
            continue
        folders = (Path(name), runs_root() / name)
        folder = next((f for f in folders if (f / MANIFEST).is_file()), None)
        if folder:
            _try(folder, lambda path: found.runs.append(load_run(path)), found)
        elif any(Path(name).glob(_JSON)):
            for path in sorted(Path(name).glob(_JSON)):
                _try(path, lambda path: _add_recorded(path, found), found)
        else:
            where = f"a folder or a name in {runs_root()}, or a result's JSON"
            raise RunError(f"no run or result {name!r}", expected=where)
    return found


def all_runs(roots: Sequence[Path]) -> Sources:
    """Return every run of some folders that has a model, or measured some."""
    found = Sources([], [], [])
    for root in roots:
        for path in sorted(root.glob(f"[!.]*/{MANIFEST}")):
            _try(path.parent, lambda path: found.runs.append(load_run(path)), found)
    runs = [run for run in found.runs if run.manifest["kind"] not in _WITHOUT_MODEL]
    return found._replace(runs=runs)


def _add_recorded(path: Path, found: Sources) -> None:
    value = read_json(path)
    if str(value.get("schema")).startswith(SCHEMA.partition("/")[0]):
        found.results.append(path)
        return
    run = load_run(path.parent, path.name)
    # The manifest of a benchmark tells nothing without its result, which is read by itself.
    if run.manifest["kind"] != "benchmark":
        found.runs.append(Run(path.with_suffix(""), run.manifest))


def _try(path: Path, add: Callable[[Path], None], found: Sources) -> None:
    try:
        add(path)
    except BloodedgeError as error:
        found.damaged.append((text(path.name), text(error)))
