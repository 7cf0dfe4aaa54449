"""Operators that are newer than the runtime, such as those of dynamic-range files."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.compat import newest_version
from bloodedge.deploy.lint.rule import Case, Rule, Severity


def _look(case: Case) -> Iterator[str]:
    if not case.file:
        return
    for kind, code, version in sorted({(o.kind, o.code, o.version) for o in case.file.operators}):
        newest = newest_version(case.runtime, code)
        if version > newest:
            most = f"version {newest} at most" if newest else "no version of it"
            yield f"{kind} has version {version}, tflite-runtime 2.14 knows {most}"


RULE = Rule(
    "too-new",
    "tflite-runtime 2.14 is the last of its name; dense layers quantized per channel in a "
    "dynamic-range file are FULLY_CONNECTED version 12",
    "convert with bloodedge export --compat tflite-runtime, or install ai-edge-litert",
    Severity.USELESS,
    _look,
    frozenset({"tflite-runtime"}),
)
