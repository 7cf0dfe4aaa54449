"""Float operators in the middle of an integer file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity


def _look(case: Case) -> Iterator[str]:
    if not case.file or not case.file.is_quantized or case.format == "mixed":
        return
    found = Counter(
        operator.kind
        for operator in case.file.operators
        if operator.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(tensor.type == "FLOAT32" for tensor in operator.outputs)
    )
    for kind, count in sorted(found.items()):
        yield f"{kind} computes in float32" + (f", {count} times" if count > 1 else "")


RULE = Rule(
    "float-fallback",
    "the converter leaves in float what has no int8 form; around it values are converted there "
    "and back",
    "use an operation that has one: relu for elu, for example",
    Severity.WARNING,
    _look,
)
