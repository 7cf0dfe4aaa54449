"""What TFLite Micro refuses."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

# Operators without a registration, found by offering them.
_ABSENT = ("GELU", "TILE")


def _look(case: Case) -> Iterator[str]:
    operators = case.file.operators if case.file else ()
    hybrid = [o for o in operators if o.weights and o.weights.type == "INT8"
              and o.outputs[0].type == "FLOAT32"]  # fmt: skip
    if hybrid:
        yield f"int8 weights meet float activations, in {hybrid[0].kind} for one"
    if any(o.kind == "DEQUANTIZE" and o.inputs[0].type == "FLOAT16" for o in operators if o.inputs):
        yield "weights are float16"
    for kind in _ABSENT:
        if any(operator.kind == kind for operator in operators):
            yield f"it has no {kind}"


RULE = Rule(
    "micro-refuses",
    "TFLite Micro has no hybrid layers, reads no float16, and knows fewer operators",
    "export int8, int16x8 or float32",
    Severity.USELESS,
    _look,
    frozenset({"tflite-micro"}),
)
