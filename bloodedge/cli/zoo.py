"""`bloodedge zoo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bloodedge.references import ModelReference


def zoo(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the trained models that are there already, whose names other commands take."""
    import json

    from bloodedge.references import zoo_models
    from bloodedge.tables import print_table, table
    from bloodedge.text import kilobytes

    rows = [_row(model) for model in zoo_models()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    cells = [
        (
            row["name"],
            kilobytes(row["bytes"]),
            "" if row["val_accuracy"] is None else f"{100 * row['val_accuracy']:.2f}",
            row["data"],
        )
        for row in rows
    ]
    print_table(table(("model", "KB", "val accuracy %", "data"), cells, words=("data",)))


def _row(model: ModelReference) -> dict[str, Any]:
    size = model.path.stat().st_size
    data = model.manifest.get("data", {})
    return {
        "name": model.path.parent.name,
        "file": model.path.name,
        "path": str(model.path),
        "bytes": size,
        "val_accuracy": _val_accuracy(model, size),
        "data": f"{data.get('title', '')}{' (synthetic)' if data.get('synthetic') else ''}",
    }


def _val_accuracy(model: ModelReference, size: int) -> float | None:
    """Return what the manifest says of the model, or of the exported file of that size.

    Raises:
        RunError: it is damaged.
    """
    from bloodedge.errors import RunError
    from bloodedge.runs import MANIFEST

    metrics = model.manifest.get("metrics", {})
    try:
        if not model.is_tflite:
            found = metrics.get("val", {}).get("accuracy")
        else:
            variants = metrics.get("variants", {}).values()
            found = next((v.get("accuracy_val") for v in variants if v.get("bytes") == size), None)
        return None if found is None else float(found)
    except (AttributeError, TypeError, ValueError):
        manifest = model.path.parent / MANIFEST
        raise RunError(f"{manifest} is damaged: its metrics are not as bloodedge writes") from None
