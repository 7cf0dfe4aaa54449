"""`bloodedge lint`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bloodedge.deploy.lint.rule import Case, Finding
    from bloodedge.references import ModelReference
    from bloodedge.variants import Recipe

_CLASSES = 8
_WORDS = ("note", "warning", "useless")


def lint(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run, a .tflite or .keras file, a zoo or a registered model; with kd the "
            "registered student."
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="Steps and formats, as bloodedge compress takes them.")
    ] = "",
    runtime: options.Runtime = "litert",
    size: Annotated[
        int, typer.Option("--size", help="Side of a registered model's images in pixels.")
    ] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Warn of what will fail or be slow on a runtime, before hours are spent on it.

    A model that is no .tflite yet is converted to the recipe's formats, by default int8, with
    the weights it has. Exits with 1 if something would be useless.
    """
    import json

    from bloodedge.cli.starting import refuse_unheeded
    from bloodedge.deploy.lint.check import lint as check
    from bloodedge.deploy.lint.check import recipe_case, useless
    from bloodedge.errors import ConfigError
    from bloodedge.variants import Recipe

    steps = Recipe.parse(recipe) if recipe else None
    if model is None and steps is None:
        raise ConfigError("nothing to lint", expected="a model, --recipe, or both")
    cases = [recipe_case(steps, runtime)] if steps else []
    if model is None:
        refuse_unheeded(context, ("--size",), "without a model")
    else:
        cases += _model_cases(context, model, steps, runtime, size)
    found = check(cases)
    if as_json:
        print(json.dumps([_entry(finding) for finding in found], indent=2))
    else:
        print_findings(found)
        if not found:
            print(f"nothing to say of {', '.join(case.name for case in cases)} on {runtime}")
    if useless(found):
        raise typer.Exit(1)


def _model_cases(
    context: typer.Context, name: str, recipe: Recipe | None, runtime: str, size: int
) -> list[Case]:
    from bloodedge.backend import use_backend
    from bloodedge.cli.starting import refuse_unheeded
    from bloodedge.deploy.lint.check import check_runtime, file_case, model_cases
    from bloodedge.errors import ConfigError
    from bloodedge.variants import Variant

    check_runtime(runtime)
    references = _references(name, recipe)
    formats = recipe.formats if recipe else ()
    files = [found for found in references if found.is_tflite]
    sized = f"with {name}, whose images have a size"
    if files:
        if formats:
            raise ConfigError(
                f"the formats {', '.join(formats)} with {name}, which is a .tflite already",
                fix="leave the formats out, or name the model that it was made from",
            )
        refuse_unheeded(context, ("--size",), sized)
        named = [(found, Variant.parse(found.name).format) for found in files]
        return [file_case(found.path, runtime, form) for found, form in named]

    use_backend("tensorflow")
    net = _restored(references[0]) if references else _fresh(name, size)
    if references and net.input_shape[1]:
        refuse_unheeded(context, ("--size",), sized)
    return model_cases(net, formats or ("int8",), int(net.input_shape[1] or size), runtime, name)


def _references(name: str, recipe: Recipe | None) -> list[ModelReference]:
    """Return the files that a name means; none for a registered model, to be built afresh.

    With kd the name is the student's, whatever runs and zoo models are called.
    """
    from bloodedge.errors import ModelError
    from bloodedge.references import find_models
    from bloodedge.train.registry import models

    registered = name in models()
    if registered and recipe and "kd" in recipe.kinds():
        return []
    try:
        return find_models(name)
    except ModelError:
        if not registered:
            raise
        return []


def _restored(reference: ModelReference) -> Any:
    from bloodedge.deploy.predict import image_sides
    from bloodedge.train.restore import restore

    model = restore(reference)
    image_sides(model, reference.path)
    return model


def _fresh(name: str, size: int) -> Any:
    from bloodedge.train.registry import ModelConfig, build

    return build(ModelConfig(name, _CLASSES, size), size=size)


def print_findings(found: Sequence[Finding]) -> None:
    """Print each finding with why it is so and what to do."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for finding in found:
        rule = finding.rule
        console.print(
            f"{_WORDS[rule.severity]}: {escape(finding.where)}: {escape(finding.says)} "
            f"\\[{rule.name}]",
            soft_wrap=True,
        )
        console.print(f"  {escape(rule.why)}; {escape(rule.fix)}", soft_wrap=True)


def _entry(finding: Finding) -> dict[str, str]:
    rule = finding.rule
    return {
        "rule": rule.name,
        "severity": _WORDS[rule.severity],
        "where": finding.where,
        "says": finding.says,
        "why": rule.why,
        "fix": rule.fix,
    }
