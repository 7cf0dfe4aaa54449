"""`bloodedge lint`: what a recipe, a model or a file will bring on a runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.console import say
from bloodedge.deploy.convert import convert
from bloodedge.deploy.flat.bytemap import MAX_BYTES
from bloodedge.deploy.lint.facts import read_facts
from bloodedge.deploy.lint.partitions import is_here, outside_of
from bloodedge.deploy.lint.registry import RULES
from bloodedge.deploy.lint.rule import RUNTIMES, Case, Finding, Severity
from bloodedge.errors import ConfigError, ModelError
from bloodedge.variants import Recipe

# Enough for the converter: ranges are not looked at.
_IMAGES = 4


def check_runtime(runtime: str) -> str:
    """Return a runtime's name.

    Raises:
        ConfigError: it is none of `RUNTIMES`.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"--runtime {runtime!r}", expected=", ".join(RUNTIMES))
    return runtime


def lint(cases: Iterable[Case]) -> list[Finding]:
    """Return what all rules find in the cases, what matters most first."""
    found = [
        Finding(case.name, rule, says)
        for case in cases
        for rule in RULES.values()
        if case.runtime in rule.runtimes
        for says in rule.look(case)
    ]
    return sorted(found, key=lambda finding: -finding.rule.severity)


def useless(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that make what was looked at useless."""
    return [finding for finding in findings if finding.rule.severity is Severity.USELESS]


def refuse_useless(findings: Iterable[Finding], *, anyway: bool) -> None:
    """Stop before work is done in vain.

    Raises:
        ConfigError: there is something useless, and nobody has asked for it `anyway`.
    """
    found = useless(findings)
    if found and not anyway:
        raise ConfigError(
            f"useless: {'; '.join(finding.says for finding in found)}",
            fix=f"{found[0].rule.fix}; or add --yes-really",
        )


def recipe_case(recipe: Recipe, runtime: str) -> Case:
    """Return the case of a recipe alone, which needs no model.

    Raises:
        ConfigError: an unknown runtime.
    """
    return Case(check_runtime(runtime), recipe=recipe)


def file_case(path: Path, runtime: str, form: str = "", *, load: bool = True) -> Case:
    """Return the case of a .tflite from anywhere; a runtime that is here loads it in a child.

    Args:
        path: the file.
        runtime: where it will run.
        form: what it stores, where that is known.
        load: whether to load it; without that only the file itself is read.

    Raises:
        ModelError: the file is missing or damaged.
        ConfigError: an unknown runtime.
    """
    check_runtime(runtime)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than 2 GiB", expected="a .tflite model")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        facts = read_facts(path.name, content)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    if load and is_here(runtime):
        refusal, outside = outside_of(path, runtime)
        facts = replace(facts, refusal=refusal, outside=outside)
    return Case(runtime, file=facts, format=form)


def model_cases(
    model: Any, formats: Sequence[str], size: int, runtime: str, name: str
) -> list[Case]:
    """Convert a Keras model to each format, on noise, and return the cases.

    Args:
        model: its weights need not be trained.
        formats: of `bloodedge.variants.FORMATS`.
        size: the side of its images.
        runtime: where it will run.
        name: of the model, for people; what they typed may be a path.

    Raises:
        ConfigError: an unknown runtime or format, or Keras on another backend than TensorFlow.
    """
    check_runtime(runtime)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_IMAGES, size, size, 3)).astype(np.uint8)
    found = []
    stem = Path(name).name
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        for form in formats:
            say(f"{name}: converting to {form}")
            path = Path(folder) / f"{stem}-{form}.tflite"
            try:
                path.write_bytes(convert(model, form, noise))
            except ModelError as error:
                label = f"{stem}-{form}"
                found.append(Case(runtime, format=form, failure=str(error), label=label))
                continue
            found.append(file_case(path, runtime, form))
    return found
