"""Quantization-aware training for a file that does not quantize activations."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

_INT8 = {"int8", "mixed"}


def _look(case: Case) -> Iterator[str]:
    recipe = case.recipe
    if recipe and "qat" in recipe.kinds() and recipe.formats and not _INT8 & set(recipe.formats):
        yield f"qat trains for int8, but only {', '.join(recipe.formats)} is written"


RULE = Rule(
    "qat-without-int8",
    "qat adapts the weights to int8 rounding, which no other format does",
    "end the recipe with int8, or leave out qat",
    Severity.USELESS,
    _look,
)
