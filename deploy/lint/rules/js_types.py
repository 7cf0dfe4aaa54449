"""Inputs and outputs that LiteRT.js does not know."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

_KNOWN = ("FLOAT32", "INT32", "UINT8")


def _look(case: Case) -> Iterator[str]:
    for what, tensors in (
        ("takes", case.file.inputs if case.file else ()),
        ("gives", case.file.outputs if case.file else ()),
    ):
        for tensor in tensors:
            if tensor.type not in _KNOWN:
                yield f"the model {what} {tensor.type.lower()}"


RULE = Rule(
    "js-types",
    "LiteRT.js hands over float32, int32 and uint8 tensors, not int8",
    "export with --io uint8 or --io float32",
    Severity.USELESS,
    _look,
    frozenset({"litert-js"}),
)
