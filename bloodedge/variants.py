"""The grammar of variant names and recipes, in one place.

    name   = base [ "-w" width ] { "-" step } [ "-" format ]       cnn_se-w1.0-kd-slim50-qat-int8
    recipe = step { "+" step } { "+" format }                      kd+slim50+qat+int8
    step   = "kd" | "slim" [ number [ "kb" | "ch" ] ] | "sparse" [ number ] | "2of4"
           | "cluster" [ number ] | "qat"

`slim25` keeps 25 % of the multiply-accumulates, `slim24kb` 24 KB of int8 weights, `slim50ch` half
of the channels; `sparse80` sets 80 % of each kernel to zero; `cluster16` leaves it 16 values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from bloodedge.errors import ConfigError

# What a file stores, the last part of a name.
FORMATS = ("float32", "float16", "dynamic", "int8", "int16x8", "mixed")
# Steps, with the units of their number; none for those that take no number.
STEPS: dict[str, tuple[str, ...]] = {
    "kd": (),
    "slim": ("", "kb", "ch"),
    "sparse": ("",),
    "2of4": (),
    "cluster": ("",),
    "qat": (),
}
# The numbers that a step can be done with, by its kind and unit. Only recipes heed them: a name
# with another number is read all the same.
_RANGES: dict[tuple[str, str], tuple[Callable[[float], bool], str]] = {
    ("slim", ""): (lambda n: 0 < n < 100, "more than slim0, less than slim100"),
    ("slim", "kb"): (lambda n: n > 0, "more than slim0kb"),
    ("slim", "ch"): (lambda n: 0 < n < 100, "more than slim0ch, less than slim100ch"),
    ("sparse", ""): (lambda n: 1 <= n <= 99, "sparse1 to sparse99"),
    ("cluster", ""): (lambda n: 3 <= n <= 256, "cluster3 to cluster256"),
}
_STEP = re.compile(r"(2of4|[a-z]+)(?:(\d+(?:\.\d+)?)(kb|ch)?)?")
_WIDTH = re.compile(r"w(\d+\.\d+)")


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes:
        kind: of `STEPS`.
        amount: its number; None for its default.
        unit: what the number counts, where there is a choice.

    Raises:
        ConfigError: an unknown step, or a number that it does not take or that has no short form.
    """

    kind: str
    amount: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind not in STEPS:
            raise _unknown(self.kind)
        units = STEPS[self.kind]
        if self.unit not in (units or ("",)) or (self.amount is None and self.unit):
            raise ConfigError(f"the step {self.text!r}", expected=_forms_of(self.kind))
        if self.amount is None:
            return
        part = self.kind == "cluster" and self.amount % 1 != 0
        odd = not _STEP.fullmatch(self.text) or float(f"{self.amount:g}") != self.amount
        if not units or odd or part:
            raise ConfigError(
                f"the step {self.kind} with {self.amount}", expected=_forms_of(self.kind)
            )

    @classmethod
    def parse(cls, text: str) -> Step:
        """Read one step.

        Raises:
            ConfigError: it is none.
        """
        found = _STEP.fullmatch(text)
        if not found:
            raise _unknown(text)
        kind, number, unit = found.groups()
        return cls(kind, None if number is None else float(number), unit or "")

    @property
    def text(self) -> str:
        """The step as it is written."""
        return self.kind + ("" if self.amount is None else f"{self.amount:g}") + self.unit


@dataclass(frozen=True)
class Recipe:
    """Steps in their order, then the formats of the files to write.

    Raises:
        ConfigError: nothing to do, a format twice, or a distillation that is not the first step.
    """

    steps: tuple[Step, ...]
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.steps and not self.formats:
            raise ConfigError("an empty recipe", expected="such as kd+slim+qat+int8")
        for form in self.formats:
            if form not in FORMATS:
                raise _unknown(form)
        if len(set(self.formats)) < len(self.formats):
            raise ConfigError(f"the recipe {self.text!r}", expected="each format once")
        if any(step.kind == "kd" for step in self.steps[1:]):
            raise ConfigError(
                f"kd inside {self.text!r} would throw away what came before it",
                expected="kd as the first step: it trains a new student",
            )

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read a recipe.

        Raises:
            ConfigError: it is none, and the nearest word is suggested; or a number is out of the
                step's range.
        """
        words = [word.strip() for word in text.split("+")] if text.strip() else []
        formats = [word for word in words if word in FORMATS]
        steps = words[: len(words) - len(formats)]
        if words[len(steps) :] != formats:
            raise ConfigError(f"the recipe {text!r}", expected="the formats after all steps")
        return cls(tuple(_in_range(Step.parse(word)) for word in steps), tuple(formats))

    @property
    def text(self) -> str:
        """The recipe as it is written."""
        return "+".join([*(step.text for step in self.steps), *self.formats])

    def kinds(self) -> list[str]:
        """Return the kinds of the steps, in their order."""
        return [step.kind for step in self.steps]


@dataclass(frozen=True)
class Variant:
    """What a model is called after: what it began as, and what was done to it.

    Attributes:
        base: a registered model, or the name of the run that it all began with.
        width: the multiplier of its channels, where the name gives it.
        steps: what was done, in this order.
        format: what the file stores; empty for a Keras model.

    Raises:
        ConfigError: parts whose name would be read as others.
    """

    base: str
    width: float | None = None
    steps: tuple[Step, ...] = ()
    format: str = ""

    def __post_init__(self) -> None:
        if _split(self.text) != (self.base, self.width, self.steps, self.format):
            raise ConfigError(
                f"{self.text!r} would not be read as the model {self.base!r}",
                expected="a name that does not end like a step, a width or a format",
            )

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read a name; every text is one, if only of a base."""
        return cls(*_split(text))

    @property
    def text(self) -> str:
        """The name."""
        width = [] if self.width is None else [f"w{float(self.width)}"]
        form = [self.format] if self.format else []
        return "-".join([self.base, *width, *(step.text for step in self.steps), *form])

    def then(self, step: Step) -> Variant:
        """Return what comes of one more step.

        Raises:
            ConfigError: this is a file already.
        """
        if self.format:
            raise ConfigError(f"{self.text} is a file: no step follows {self.format}")
        return replace(self, steps=(*self.steps, step))

    def as_format(self, form: str) -> Variant:
        """Return the file of a format."""
        return replace(self, format=form)


def _split(text: str) -> tuple[str, float | None, tuple[Step, ...], str]:
    """Take a name apart from its end; what is left in front is the base."""
    *rest, last = text.split("-")
    form = last if rest and last in FORMATS else ""
    if not form:
        rest.append(last)
    steps: list[Step] = []
    while len(rest) > 1 and (step := _canonical(rest[-1])):
        steps.insert(0, step)
        rest.pop()
    width = None
    if len(rest) > 1 and (found := _WIDTH.fullmatch(rest[-1])):
        number = float(found[1])
        # As it is written, and no other way, so that each name has one reading.
        if f"w{number}" == rest[-1]:
            width = number
            rest.pop()
    return "-".join(rest), width, tuple(steps), form


def _canonical(word: str) -> Step | None:
    try:
        step = Step.parse(word)
    except ConfigError:
        return None
    return step if step.text == word else None


def _unknown(word: str) -> ConfigError:
    known = [*STEPS, *FORMATS]
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return ConfigError(
        f"unknown step {word!r}",
        expected=", ".join(known),
        fix=f"did you mean {near[0]!r}?" if near else "",
    )


def _in_range(step: Step) -> Step:
    """Return a step that can be done with its number, if it has one.

    Raises:
        ConfigError: it cannot.
    """
    if step.amount is not None:
        fits, expected = _RANGES[step.kind, step.unit]
        if not fits(step.amount):
            raise ConfigError(f"the step {step.text!r}", expected=expected)
    return step


def _forms_of(kind: str) -> str:
    units = STEPS[kind]
    return " or ".join([kind, *(f"{kind}25{unit}" for unit in units)])
