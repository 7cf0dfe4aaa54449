"""Steps that make the download smaller, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

_STEPS = ("sparse", "2of4", "cluster")


def _look(case: Case) -> Iterator[str]:
    kinds = case.recipe.kinds() if case.recipe else []
    found = [kind for kind in _STEPS if kind in kinds]
    if found:
        yield f"{' and '.join(found)} will shrink the gzipped download, not the file, not the time"


RULE = Rule(
    "download-only",
    "TFLite stores zeros and repeated values like any other, and its kernels multiply by them",
    "use slim for a smaller file and less work",
    Severity.NOTE,
    _look,
)
