"""16-bit activations on runtimes that have no fast kernels for them."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import WITH_XNNPACK, Case, Rule, Severity


def _look(case: Case) -> Iterator[str]:
    if case.recipe and "int16x8" in case.recipe.formats:
        yield f"int16x8 will be many times slower than float32 on {case.runtime}"
    if case.file:
        slow = [
            operator
            for operator in case.file.operators
            if operator.weights is not None and operator.outputs[0].type == "INT16"
        ]
        if slow:
            yield f"{len(slow)} layers compute on 16-bit activations, without a fast kernel"


RULE = Rule(
    "int16x8",
    "XNNPACK has no kernels for 16-bit activations: the runtime's reference loops compute them",
    "use int8, or mixed if int8 loses too much; tflite-micro has kernels for int16x8",
    Severity.USELESS,
    _look,
    WITH_XNNPACK,
)
