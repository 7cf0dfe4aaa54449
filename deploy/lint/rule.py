"""What a rule is, what it looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from bloodedge.deploy.lint.facts import FileFacts
from bloodedge.variants import Recipe

RUNTIMES = ("litert", "tflite-runtime", "tf-lite", "tflite-micro", "litert-js")
# Those that run on XNNPACK, or on TFLite's own kernels where it has none.
WITH_XNNPACK = frozenset({"litert", "tflite-runtime", "tf-lite"})


class Severity(IntEnum):
    """How much a finding matters."""

    NOTE = 0
    WARNING = 1
    USELESS = 2


@dataclass(frozen=True)
class Case:
    """What is looked at: a recipe, a file, or that a model could not be turned into one.

    Attributes:
        runtime: of `RUNTIMES`.
        recipe: the steps to come, if any.
        file: the file, if there is one.
        format: what it stores, where that is known.
        failure: why there is no file.
        label: what it is called where there is no file.
    """

    runtime: str
    recipe: Recipe | None = None
    file: FileFacts | None = None
    format: str = ""
    failure: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """What it is, for people."""
        if self.recipe:
            return f"recipe {self.recipe.text}"
        return self.file.name if self.file else self.label


@dataclass(frozen=True)
class Rule:
    """One thing to know before it costs time.

    Attributes:
        name: what it is called, in small letters with dashes.
        why: why that is so, in a sentence.
        fix: what to do about it.
        severity: how much it matters.
        look: yields what it finds in a case, each in words.
        runtimes: where it holds.
    """

    name: str
    why: str
    fix: str
    severity: Severity
    look: Callable[[Case], Iterable[str]]
    runtimes: frozenset[str] = frozenset(RUNTIMES)


@dataclass(frozen=True)
class Finding:
    """What a rule has found.

    Attributes:
        where: the recipe or file.
        rule: the rule.
        says: what was found.
    """

    where: str
    rule: Rule
    says: str
