"""`bloodedge compress`: every step of a recipe as a run folder, down to verified .tflite files."""

from __future__ import annotations

from bloodedge.compress.chain.forecast import check_teachers, forecast
from bloodedge.compress.chain.link import Link
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.chain.run import Planned, State, planned, run_chain
from bloodedge.compress.chain.steps import training_links
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.deploy.lint.check import lint, model_cases, recipe_case
from bloodedge.deploy.lint.rule import Finding
from bloodedge.deploy.recipe.rows import Row, rows
from bloodedge.references import find_keras
from bloodedge.runs import Run
from bloodedge.variants import Recipe, Variant

# What a recipe that names no format ends in.
DEFAULT_FORMATS = ("int8",)


def links(config: RecipeConfig, *, allow_failing: bool = False) -> list[Link]:
    """Return all steps: those that train, then one for each format.

    Args:
        config: the recipe and its settings.
        allow_failing: keep files that fail their gate, marked as such.

    Raises:
        ConfigError: a setting out of range.
        RunError: names that no run can have.
        ModelError: the source is missing.
    """
    chain = training_links(config)
    parent = chain[-1].name if chain else config.source
    end = config.start
    for step in config.steps:
        end = end.then(step)
    for form in config.recipe.formats or DEFAULT_FORMATS:
        exported = ExportConfig(
            parent,
            end.as_format(form).text,
            (form,),
            config.per_class,
            config.seed,
            allow_failing=allow_failing,
        )
        chain.append(Link(form, exported, export, parent))
    return chain


def lint_recipe(config: RecipeConfig, runtime: str) -> list[Finding]:
    """Return what is known of the recipe, and of what was done to its source before.

    Raises:
        ConfigError: an unknown runtime.
    """
    recipe = config.recipe
    # A source that is itself the result of steps: these can be undone as well.
    before = () if config.begins_anew else Variant.parse(find_keras(config.source).name).steps
    whole = Recipe((*before, *config.steps), recipe.formats or DEFAULT_FORMATS)
    return lint([recipe_case(whole, runtime)])


def lint_result(config: RecipeConfig, data: Dataset, runtime: str) -> list[Finding]:
    """Return what is known of the files to come, from a model of their size.

    Nothing where all steps are finished.

    Raises:
        ConfigError: a budget that cannot be met, or an unknown runtime.
        ModelError: as `plan`.
    """
    chain = links(config)
    if all(step.state is State.FINISHED for step in planned(chain, data)):
        return []
    formats = config.recipe.formats or DEFAULT_FORMATS
    name = chain[-len(formats)].name.removesuffix(f"-{formats[0]}")
    return lint(model_cases(forecast(config, data), formats, data.size, runtime, name))


def plan(config: RecipeConfig, data: Dataset, *, allow_failing: bool = False) -> list[Planned]:
    """Return every step and how far it has come, after checking what can be checked at once.

    Raises:
        ConfigError: a budget that cannot be met: the smallest reachable is named.
        ModelError: a model is missing, does not fit the data, or cannot be cut.
        RunError: names that no run can have.
    """
    chain = links(config, allow_failing=allow_failing)
    found = planned(chain, data)
    if any(step.state is not State.FINISHED for step in found):
        forecast(config, data)
        check_teachers(config, data)
    return found


def compress(
    config: RecipeConfig, data: Dataset, *, force: bool = False, allow_failing: bool = False
) -> tuple[list[Run], list[Row]]:
    """Run a recipe and return its runs, and a row for the source and each of them.

    A step that is finished with the same settings, data and parents is used as it is; one that
    was interrupted is continued. The source is only read.

    Args:
        config: the recipe and its settings.
        data: the images for every step.
        force: replace finished steps that were made otherwise.
        allow_failing: keep files that fail their gate, marked as such.

    Raises:
        BloodedgeError: as `plan`, or whatever a step raises; what was finished before it stays.
    """
    chain = [step.link for step in plan(config, data, allow_failing=allow_failing)]
    runs = run_chain(chain, data, force=force)
    return runs, rows(config, chain, runs, data)
