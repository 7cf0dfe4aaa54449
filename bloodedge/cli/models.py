"""`bloodedge models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bloodedge.train.models.spec import ModelSpec

_CLASSES = 8


def models(
    size: Annotated[int, typer.Option("--size", help="Side of the images in pixels.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models: what each is for, and what it costs with 8 classes.

    MACs are multiply-accumulates for one image; the size is that of the weights in float32.
    """
    import json

    from bloodedge.backend import use_backend
    from bloodedge.console import Meter
    from bloodedge.train import registry

    # Refuses a size that no model takes, before anything heavy is imported.
    registry.ModelConfig("cnn_se", _CLASSES, size)
    use_backend()
    entries = registry.models()
    rows = []
    with Meter("models", len(entries)) as meter:
        for entry in entries.values():
            rows.append(_row(entry, size))
            meter.update(entry.name)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows, size)


def _row(entry: ModelSpec, size: int) -> dict[str, Any]:
    """Build one model and say what it costs, or why it cannot be built."""
    from bloodedge.errors import ConfigError
    from bloodedge.train.cost import model_cost
    from bloodedge.train.registry import ModelConfig, blueprint

    row: dict[str, Any] = {
        "name": entry.name,
        "role": entry.role,
        "purpose": entry.purpose,
        "published": entry.published,
        "attention": list(entry.attention),
        "scalable": entry.scalable,
        "any_size": entry.any_size,
        "size": size,
    }
    keys = ("parameters", "non_trainable", "macs", "float32_bytes")
    try:
        cost = model_cost(blueprint(ModelConfig(entry.name, _CLASSES, size)))
    except ConfigError as error:
        return row | dict.fromkeys(keys) | {"note": str(error)}
    figures = (cost.parameters, cost.fixed, cost.macs, cost.float_bytes)
    return row | dict(zip(keys, figures, strict=True)) | {"note": ""}


def _print_table(rows: list[dict[str, Any]], size: int) -> None:
    """Print the models, those of a role together."""
    from bloodedge.tables import print_table, table

    lines: list[tuple[str, ...]] = []
    for role in dict.fromkeys(row["role"] for row in rows):
        lines += [()] if lines else []
        lines.append((f"{role}:", "", "", "", ""))
        alike = [row for row in rows if row["role"] == role]
        lines += [(row["name"], *_figures(row), _what_for(row)) for row in alike]
    head = ("model", "parameters", "MMACs", "float32 MB", "what for")
    title = f"{size}x{size} pixels, {_CLASSES} classes"
    print_table(table(head, lines, words=("what for",), title=title))


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["macs"] is None:
        return "-", "-", "-"
    megabytes = f"{row['float32_bytes'] / 1e6:.2f}"
    return f"{row['parameters']:,}", f"{row['macs'] / 1e6:,.1f}", megabytes


def _what_for(row: dict[str, Any]) -> str:
    published = f" ({row['published']:.2f} %)" if row["published"] else ""
    return row["note"] or f"{row['purpose']}{published}"
