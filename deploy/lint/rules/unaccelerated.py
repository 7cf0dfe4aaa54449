"""Operators that the runtime's accelerated kernels do not take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bloodedge.deploy.lint.rule import WITH_XNNPACK, Case, Rule, Severity

# Conversions at the file's ends are there whatever the model is.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# What computes less than this share of a file's values, such as the softmax at its end, costs
# nothing that could be measured.
_SHARE = 0.01


def _look(case: Case) -> Iterator[str]:
    if not case.file or case.file.outside is None:
        return
    operators = case.file.operators
    least = _SHARE * sum(operator.values for operator in operators)
    outside = [operators[i] for i in case.file.outside if i < len(operators)]
    # Of 16-bit files nothing is taken, which another rule says.
    large = [
        o
        for o in outside
        if o.values >= least
        and o.kind not in _CONVERSIONS
        and {t.type for t in o.outputs} - {"INT16"}
    ]
    for kind, count in sorted(Counter(operator.kind for operator in large).items()):
        yield f"{kind} runs outside XNNPACK" + (f", {count} times" if count > 1 else "")


RULE = Rule(
    "unaccelerated",
    "what XNNPACK has no kernel for runs on plain loops, and splits the graph around it",
    "replace it: relu for gelu or hard_silu, max pooling or a stride for average pooling in int8",
    Severity.WARNING,
    _look,
    WITH_XNNPACK,
)
