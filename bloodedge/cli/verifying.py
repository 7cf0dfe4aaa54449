"""`bloodedge verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.runs import Run


def verify(
    context: typer.Context,
    parent: Annotated[str, typer.Argument(help="The model to keep up with: run, file or zoo.")],
    child: Annotated[str, typer.Argument(help="The model to check.")],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    images: Annotated[
        int, typer.Option("--images", help="At least how many, as many of each class; 0 for all.")
    ] = 0,
    max_drop: options.MaxDrop = None,
    max_class_drop: options.MaxClassDrop = None,
    max_ece: options.MaxEce = None,
    name: options.Name = None,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    force: options.Force = False,
) -> None:
    """Compare two models on the same images: what was lost, and which images changed class.

    Exits with 1 when the child loses more than the limits; the run is written all the same.
    """
    from bloodedge.cli.starting import refuse_other_data, start_backend
    from bloodedge.data.sources import load_data
    from bloodedge.deploy.verify_pair import VerifyConfig, verify_pair
    from bloodedge.references import find_model

    pair = find_model(parent), find_model(child)
    config = VerifyConfig(
        parent=pair[0],
        child=pair[1],
        split=split,
        images=images,
        name=name,
        max_drop=max_drop,
        max_class_drop=max_class_drop,
        max_ece=max_ece,
        seed=seed,
        force=force,
    )
    refuse_other_data(context, [parent, child])
    start_backend(context, backend, pair)
    run = verify_pair(config, load_data(data, size=size))
    _print_run(run, split)
    if run.manifest["metrics"]["failed"]:
        raise typer.Exit(1)


def _print_run(run: Run, split: str) -> None:
    from bloodedge.tables import print_table, table

    m = run.manifest["metrics"][split]
    title = f"{run.manifest['data']['title']}, {split}"
    head = ("figure", "parent", "child", "lost [95 %]")
    print_table(table(head, _rows(m, run.manifest["model"]["class_names"]), title=title))
    print(
        f"agreement {100 * m['agreement']:.2f} %, largest difference {m['max_difference']:.2g}; "
        f"{m['broken']} images broken, {m['mended']} mended, McNemar p {m['mcnemar_p']:.3g}"
    )
    for line in run.manifest["metrics"]["failed"]:
        print(f"failed: {line}")
    print(run.path)


def _rows(m: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    drop = m["parent_accuracy"] - m["accuracy"]
    yield (
        "accuracy %",
        f"{100 * m['parent_accuracy']:.2f}",
        f"{100 * m['accuracy']:.2f}",
        _interval(drop, m["accuracy_drop_95ci"]),
    )
    for index, name in enumerate(names):
        if not m["class_images"][index]:
            yield f"recall % of {name}", "no image", "no image", ""
            continue
        lost, kept = m["recall_drop"][index], m["recall"][index]
        yield (
            f"recall % of {name} ({m['class_images'][index]})",
            f"{100 * (kept + lost):.2f}",
            f"{100 * kept:.2f}",
            _interval(lost, m["recall_drop_95ci"][index]),
        )
    for title, key in (("calibration error", "ece"), ("Brier score", "brier")):
        yield title, f"{m[f'parent_{key}']:.4f}", f"{m[key]:.4f}", ""


def _interval(value: float, ends: list[float]) -> str:
    return f"{100 * value:.2f} [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"
