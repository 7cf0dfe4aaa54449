"""What manifests tell of a model file that the report does not ask for: its work and its arena."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.model_work import model_work
from bloodedge.benchmarks.report.data import Row
from bloodedge.benchmarks.report.read import digest, entry
from bloodedge.deploy.runtime_trials import recorded_arena
from bloodedge.errors import BloodedgeError
from bloodedge.files import sha256_of
from bloodedge.references import TFLITE_SUFFIX
from bloodedge.runs import Run

# Parents first; the run that holds a file knows more of it than one that evaluated it.
_ORDER = {"quantize": 1, "export": 2, "evaluate": 3}
# What leaves the multiply-accumulates of its parent: QAT folds batch norm, which has none.
_AS_MANY = ("quantize", "export")


@dataclass(frozen=True)
class Facts:
    """What is known of a file.

    Attributes:
        arena: bytes that TFLite Micro needs; 0 where it refused the file, None where nobody tried.
        macs: multiply-accumulates of an inference; None where they are not counted.
    """

    arena: int | None = None
    macs: int | None = None

    def macs_of(self, row: Row) -> int | None:
        """Return those that a benchmark's result gives, else `macs`."""
        timed = row.latency.figures if row.latency else None
        return timed.work.macs if timed and timed.work else self.macs


def facts_of(runs: Iterable[Run]) -> dict[str, Facts]:
    """Return what is known of each model file by its digest; what is damaged is left out."""
    found: dict[str, Facts] = {}
    for run in sorted(runs, key=lambda run: _ORDER.get(str(run.manifest["kind"]), 0)):
        above = found.get(str(entry(run.manifest, "parents").get("parent")), Facts())
        for sha, facts in _files(run):
            if facts.macs is None and run.manifest["kind"] in _AS_MANY:
                facts = replace(facts, macs=above.macs)
            found.setdefault(sha, facts)
    return found


def _files(run: Run) -> Iterator[tuple[str, Facts]]:
    manifest = run.manifest
    variants = entry(manifest.get("metrics"), "variants").values()
    tried = {str(v.get("file")): entry(v, "runtimes") for v in variants if isinstance(v, dict)}
    files = dict(entry(manifest, "files"))
    evaluated = entry(manifest.get("model"), "file")
    if manifest["kind"] == "evaluate":
        files = {str(evaluated.get("name")): evaluated}
    for name, file in files.items():
        try:
            sha = digest(file.get("sha256") if isinstance(file, dict) else None)
        except BloodedgeError:
            continue
        arena = recorded_arena(tried[name]) if name in tried else None
        yield sha, Facts(arena, _macs(run.path / name, sha, manifest))


def _macs(path: Path, sha: str, manifest: Mapping[str, Any]) -> int | None:
    """Count them in the file if it is there, else in the model that the manifest describes."""
    try:
        if path.name.endswith(TFLITE_SUFFIX) and path.is_file() and sha256_of(path) == sha:
            return model_work(path.name, path.read_bytes()).macs
        return _registered(manifest)
    except BloodedgeError:
        return None


def _registered(manifest: Mapping[str, Any]) -> int | None:
    """Count them in a registered model; one whose channels were cut has other parameters."""
    model = entry(manifest, "model")
    if not entry(model, "config") or "parameters" not in model:
        return None
    from bloodedge.train.modelio import entry_config

    parameters, macs = _cost(entry_config(model))
    return macs if parameters == model["parameters"] else None


@cache
def _cost(config: Any) -> tuple[int, int]:
    from bloodedge.backend import use_backend

    use_backend()
    from bloodedge.train.cost import model_cost
    from bloodedge.train.registry import blueprint

    cost = model_cost(blueprint(config))
    return cost.parameters, cost.macs
