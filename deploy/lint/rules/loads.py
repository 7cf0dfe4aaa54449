"""Files that the runtime itself refuses, and models that no file can be made of."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity


def _look(case: Case) -> Iterator[str]:
    if case.failure:
        yield case.failure
    if case.file and case.file.refusal:
        yield f"{case.runtime} does not load it: {case.file.refusal}"


RULE = Rule(
    "does-not-load",
    "this was tried here, with the converter or in a child process",
    "leave that format out, or change the layer that is named",
    Severity.USELESS,
    _look,
)
