"""`bloodedge compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bloodedge.cli import options
from bloodedge.cli.chain_figures import print_plan, print_rows
from bloodedge.cli.linting import print_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bloodedge.compress.chain.recipe import RecipeConfig
    from bloodedge.deploy.lint.rule import Finding

Number = TypeVar("Number", int, float)
_PER_STEP = "for all steps, or by step, such as "
_EXAMPLES = {"--epochs": "kd=40,qat=5", "--lr": "kd=0.005,qat=0.0005"}
# What only steps that train heed, and what slim alone does.
_FIT = ("--epochs", "--lr", "--batch")
_SLIM = ("--importance", "--floor")


def compress(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="Steps, then formats, such as kd+slim25+sparse80+cluster16+qat+int8+float16. slim "
            "alone keeps half of the multiply-accumulates, or what --macs, --kb or --ratio says.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            help="What to compress: a run, a file or a zoo model; with kd the teacher. By default "
            "the newest training run, or the zoo's vgg16."
        ),
    ] = None,
    student: Annotated[str, typer.Option("--student", help="What kd trains.")] = "cnn_se",
    width: options.Width = 1.0,
    teacher: options.Teachers = None,
    method: options.Method = "kd",
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = None,
    teacher_views: options.TeacherViews = 8,
    macs: options.Macs = None,
    kb: options.Kb = None,
    ratio: options.Ratio = None,
    importance: options.Importance = "taylor",
    floor: options.Floor = 0.1,
    sparsity: Annotated[
        float | None, typer.Option("--sparsity", help="sparse: share of zeros, by default half.")
    ] = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", help="cluster: values a kernel, by default 16.")
    ] = None,
    epochs: Annotated[
        str, typer.Option("--epochs", help=f"Epochs, {_PER_STEP}{_EXAMPLES['--epochs']}.")
    ] = "",
    lr: Annotated[
        str, typer.Option("--lr", help=f"Peak learning rate, {_PER_STEP}{_EXAMPLES['--lr']}.")
    ] = "",
    batch: options.Batch = None,
    per_class: Annotated[
        int,
        typer.Option("--calibration-per-class", help="Training images of each class to calibrate."),
    ] = 32,
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: Annotated[
        str, typer.Option("--name", help="What the runs' names begin with, instead of the model's.")
    ] = "",
    runtime: options.Runtime = "litert",
    seed: options.Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps and how far they are; run nothing.")
    ] = False,
    yes_really: Annotated[
        bool, typer.Option("--yes-really", help="Run a recipe that is known to be useless.")
    ] = False,
    allow_failing: Annotated[
        bool, typer.Option("--allow-failing", help="Keep files that fail their gate, marked so.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace finished steps that were made otherwise.")
    ] = False,
) -> None:
    """Run the steps of a recipe one after the other, each a run folder of its own.

    The same command continues where it stopped: finished steps are used as they are. Without a
    format the recipe ends in int8. The model itself is only read.
    """
    from bloodedge.backend import use_backend
    from bloodedge.cli.starting import loss_config, refuse_other_data
    from bloodedge.compress.chain.recipe import RecipeConfig
    from bloodedge.data.sources import load_data
    from bloodedge.deploy.recipe.stage import compress as run
    from bloodedge.deploy.recipe.stage import links, lint_recipe, lint_result, plan
    from bloodedge.references import find_all
    from bloodedge.variants import Recipe

    config = RecipeConfig(
        model or _default_model(),
        Recipe.parse(recipe),
        name=name,
        student=student,
        width=width,
        teachers=tuple(teacher or ()),
        kd=loss_config(method, temperature, alpha),
        views=teacher_views,
        macs=macs,
        kb=kb,
        ratio=ratio,
        sparsity=sparsity,
        clusters=clusters,
        importance=importance,
        floor=floor,
        epochs=per_step("--epochs", epochs, int),
        rates=per_step("--lr", lr, float),
        batch=batch,
        per_class=per_class,
        seed=seed,
    )
    # Settings that no step takes, and models that are not there, are refused before anything heavy
    # is imported.
    links(config)
    _refuse_others(context, config)
    anyway = yes_really or dry_run
    find_all([config.source, *config.teachers])
    _heed(lint_recipe(config, runtime), anyway=anyway)
    refuse_other_data(context, [config.source, *config.teachers])
    images = load_data(data, size=size)
    # The bridge to tfmot and the converter both need TensorFlow.
    use_backend("tensorflow")
    _heed(lint_result(config, images, runtime), anyway=anyway)
    if dry_run:
        print_plan(plan(config, images, allow_failing=allow_failing))
        return
    _, rows = run(config, images, force=force, allow_failing=allow_failing)
    print_rows(rows, images.title)


def _refuse_others(context: typer.Context, config: RecipeConfig) -> None:
    """Refuse what no step of the recipe heeds."""
    from bloodedge.cli.starting import (
        TEACHING,
        refuse_calibration,
        refuse_temperature,
        refuse_unheeded,
    )
    from bloodedge.deploy.recipe.stage import DEFAULT_FORMATS

    kinds = config.recipe.kinds()
    if not kinds:
        refuse_unheeded(context, _FIT, "without a step that trains")
    elif not any(config.trains(kind) for kind in kinds):
        unheeded = ("--teacher", "--lr", "--batch", *TEACHING)
        refuse_unheeded(context, unheeded, "with --epochs 0", fix="fine-tune, or leave them out")
    if "slim" not in kinds:
        refuse_unheeded(context, _SLIM, "without slim in the recipe")
    if "qat" not in kinds:
        refuse_calibration(context, config.recipe.formats or DEFAULT_FORMATS)
    if config.teaching is None:
        refuse_unheeded(context, TEACHING, "without kd or --teacher")
    refuse_temperature(context, config.kd.method)


def _heed(found: Sequence[Finding], *, anyway: bool) -> None:
    """Print what the linter says, and stop at what is useless."""
    from bloodedge.deploy.lint.check import refuse_useless

    print_findings(found)
    refuse_useless(found, anyway=anyway)


def per_step(option: str, text: str, number: Callable[[str], Number]) -> dict[str, Number]:
    """Read `5`, `kd=40,qat=5` or `5,qat=10`: a number by kind of step, one for all others.

    Raises:
        ConfigError: the text has another form, or two numbers for the same steps.
    """
    from bloodedge.compress.chain.recipe import EVERY_STEP
    from bloodedge.errors import ConfigError

    found = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        kind, equals, value = part.rpartition("=")
        key = kind.strip() if equals else EVERY_STEP
        try:
            if key in found or (equals and not kind):
                raise ValueError
            found[key] = number(value)
        except ValueError:
            raise ConfigError(
                f"{option} {text!r}",
                expected=f"a number, or by step such as {_EXAMPLES[option]}",
            ) from None
    return found


def _default_model() -> str:
    """Return the newest training run, or the teacher that a fresh clone has."""
    from bloodedge.console import say
    from bloodedge.errors import ModelError
    from bloodedge.references import latest_run

    try:
        found = latest_run(("train",))
    except ModelError:
        found = "vgg16"
    say(f"compressing {found}")
    return found
