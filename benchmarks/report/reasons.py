"""Why int8 may be slower than float32: only what a file, a runtime or a result shows.

Rules of `bloodedge lint` are asked about both files. What is true of both is said to be so: it may
cost int8 more than float32, but nothing here shows that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bloodedge.benchmarks.report.data import Latency, Row
from bloodedge.benchmarks.report.read import text
from bloodedge.deploy.lint.check import file_case, lint
from bloodedge.deploy.lint.facts import FileFacts
from bloodedge.deploy.lint.partitions import is_here
from bloodedge.deploy.lint.rule import Case
from bloodedge.errors import BloodedgeError
from bloodedge.files import sha256_of
from bloodedge.references import TFLITE_SUFFIX
from bloodedge.runs import Run

# The rules about time; the others are about files that do not load, or about steps.
_RULES = ("float-fallback", "unaccelerated", "vector-width")
# The names under which results and `bloodedge lint` know a runtime.
_RUNTIMES = {
    "ai_edge_litert": "litert",
    "tflite_runtime": "tflite-runtime",
    "tensorflow": "tf-lite",
    "litert.js": "litert-js",
    "benchmark_model": "tf-lite",
}
# Only these run as the interpreter here does, which is asked what XNNPACK takes.
_AS_HERE = ("ai_edge_litert", "tflite_runtime", "tensorflow")
# Operators that compute less than this share of a file's values cost nothing one could measure.
_SHARE = 0.01


@dataclass
class ModelFiles:
    """The .tflite files of runs by their digest, and what `bloodedge lint` says of each."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    _cases: dict[tuple[str, str, bool], Case | str] = field(default_factory=dict)

    def case(self, row: Row, latency: Latency) -> Case | str:
        """Return what a file is on the runtime of a result, or why nothing is known of it."""
        engine = latency.runtime.split(" ")[0]
        runtime = _RUNTIMES.get(engine, "litert")
        asked = engine in _AS_HERE and not latency.delegate
        key = (row.sha256, runtime, asked)
        if key not in self._cases:
            self._cases[key] = self._look(row, runtime, asked)
        return self._cases[key]

    def _look(self, row: Row, runtime: str, asked: bool) -> Case | str:
        path, named = self.paths.get(row.sha256), f"the {row.variant} file {row.sha256[:12]}"
        try:
            if path is None or not path.is_file():
                return f"{named} is in no run here"
            if sha256_of(path) != row.sha256:
                return f"{named} was changed in the run that held it"
            # XNNPACK here says nothing about another program's.
            return file_case(path, runtime, row.variant, load=asked)
        except (BloodedgeError, OSError) as error:
            return f"{named}: {text(error)}"


def model_files(runs: Iterable[Run]) -> ModelFiles:
    """Return the .tflite files that runs say they hold."""
    paths = {}
    for run in runs:
        files = run.manifest.get("files")
        for name, file in files.items() if isinstance(files, dict) else ():
            inside = "/" not in name and name.endswith(TFLITE_SUFFIX)
            if inside and isinstance(file, dict) and isinstance(file.get("sha256"), str):
                paths[file["sha256"]] = run.path / name
    return ModelFiles(paths)


def reasons(
    float32: Row,
    int8: Row,
    place: Latency,
    xnnpack: tuple[bool | None, bool | None],
    files: ModelFiles,
) -> list[str]:
    """Return what is known of why int8 takes longer, or that nothing is known; never empty.

    Args:
        float32: one file.
        int8: the other.
        place: where both were measured.
        xnnpack: whether the device's runtime said that it uses XNNPACK, for each file.
        files: where the files are.
    """
    found = _of_the_device(place, xnnpack)
    cases = [files.case(row, place) for row in (float32, int8)]
    if missing := [case for case in cases if isinstance(case, str)]:
        return [*found, f"nothing is known of the files: {', '.join(missing)}"]
    before, after = (case for case in cases if isinstance(case, Case))
    found += _of_the_files(before, after)
    return found or [f"nothing is known: {_looked_at(after, place)}"]


def _of_the_device(place: Latency, xnnpack: tuple[bool | None, bool | None]) -> list[str]:
    found = []
    if place.int8_dot is False:
        found.append("the processor's flags name no int8 dot product")
    if xnnpack == (True, False):
        found.append("the runtime used XNNPACK for float32 and not for int8")
    elif xnnpack == (False, False) or place.delegate == "cpu":
        found.append("true of both: without XNNPACK, on the runtime's built-in kernels")
    return found


def _of_the_files(before: Case, after: Case) -> list[str]:
    old, new = _findings(before), _findings(after)
    found = [says for says in new if says not in old]
    if before.file and after.file:
        found += _more_operators(before.file, after.file)
    return found + [f"true of both: {says}" for says in new if says in old]


def _findings(case: Case) -> list[str]:
    return [
        f"{finding.says} [{finding.rule.name}]"
        for finding in lint([case])
        if finding.rule.name in _RULES
    ]


def _more_operators(before: FileFacts, after: FileFacts) -> list[str]:
    """Name the kinds of operators that int8 adds, with the share of all values they compute."""
    more = Counter(o.kind for o in after.operators) - Counter(o.kind for o in before.operators)
    values = {kind: _values(after, kind) - _values(before, kind) for kind in more}
    total = sum(o.values for o in after.operators)
    return [
        f"{more[kind]} {kind} more than in float32, {100 * n / total:.0f} % of the values computed"
        for kind, n in sorted(values.items(), key=lambda item: -item[1])
        if n > 0 and n >= _SHARE * total
    ]


def _values(facts: FileFacts, kind: str) -> int:
    return sum(operator.values for operator in facts.operators if operator.kind == kind)


def _looked_at(case: Case, place: Latency) -> str:
    """Return what was looked at without finding anything, and what could not be."""
    words = ["no float fall-back, no empty lanes and no added operators in the file"]
    if case.file and case.file.outside is not None:
        words.append("no operator outside XNNPACK (asked of the runtime here)")
    elif case.file and case.file.refusal:
        words.append(f"{case.runtime} does not load it here: {case.file.refusal}")
    elif not is_here(case.runtime):
        words.append(f"{case.runtime} is not here to say what XNNPACK takes")
    else:
        words.append("what XNNPACK takes is not known of that program")
    if place.int8_dot is None:
        words.append("the result does not name the processor's flags")
    return ", ".join(words)
