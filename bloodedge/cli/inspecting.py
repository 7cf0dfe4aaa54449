"""`bloodedge inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodedge.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bloodedge.deploy.flat.bytemap import ByteMap
    from bloodedge.deploy.metadata import Found


def inspect(
    models: Annotated[
        list[str],
        typer.Argument(help="Runs, .tflite files or zoo names; an export run means all its files."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what each byte of a .tflite is for, and how far the file is from its floor."""
    import json

    from bloodedge.deploy.flat.bytemap import map_file
    from bloodedge.deploy.metadata import read_metadata
    from bloodedge.errors import ModelError
    from bloodedge.references import find_models

    files = [m.path for name in models for m in find_models(name) if m.is_tflite]
    if not files:
        raise ModelError(f"{', '.join(models)}: no .tflite file", fix="name an export run")
    maps = {path: map_file(path) for path in files}
    if as_json:
        rows = [{"file": str(path), **_figures(found)} for path, found in maps.items()]
        print(json.dumps(rows, indent=2))
        return
    for path, found in maps.items():
        _print_table(path, found)
        try:
            told = describe(read_metadata(path.read_bytes()))
        # Every byte was mapped all the same.
        except ModelError as error:
            told = [f"metadata: cannot be read: {error}"]
        print(*told, sep="\n")


def describe(found: Found) -> list[str]:
    """Return one line for each kind of metadata in a file."""
    from bloodedge.deploy.flat.bytemap import HINT_NOTES

    lines = []
    if found.about is None:
        lines.append("metadata: none that Android Studio or MediaPipe read")
    else:
        origin = "written by another tool, kept as it is" if found.foreign else "by bloodedge"
        texts = [text for text in vars(found.about).values() if text]
        lines.append(f"metadata, {origin}: {'; '.join(texts)}")
    if found.provenance:
        lines.append(_origin(found.provenance))
    for title, known in (("hints for runtimes", True), ("further metadata, not known here", False)):
        if names := [name for name in found.others if (name in HINT_NOTES) == known]:
            lines.append(f"{title}: {', '.join(names)}")
    return lines


def _origin(own: Mapping[str, Any]) -> str:
    limits = own.get("limits")
    chosen = limits.items() if isinstance(limits, dict) else ()
    told = ", ".join(f"{name} {limit}" for name, limit in chosen)
    # Any text may stand in a file from elsewhere.
    return one_line(
        f"made from {str(own.get('parent'))[:16]}, data {str(own.get('data'))[:16]}; "
        f"gate {'failed' if own.get('failed') else 'passed'}"
        f"{f', with limits of its own: {told}' if told else ''}"
    )


def _figures(found: ByteMap) -> dict[str, object]:
    return {
        "bytes": found.total,
        "purposes": found.purposes,
        "constants": found.constants,
        "lean_limit": found.lean_limit,
        "added": found.added,
        "above_floor": found.above_floor,
    }


def _print_table(path: Path, found: ByteMap) -> None:
    from bloodedge.tables import print_table, table

    purposes = [
        (purpose, f"{count:,}", f"{100 * count / found.total:.2f}")
        for purpose, count in found.purposes.items()
        if count
    ]
    rows = [*purposes, (), ("file", f"{found.total:,}", "100.00")]
    print_table(table(("bytes for", "bytes", "share %"), rows, title=path.name))
    over = found.above_floor
    verdict = f"{over:,} bytes above" if over > 0 else f"{-over:,} bytes within"
    print(
        f"weights and biases {found.constants:,}; lean up to {found.lean_limit:,} "
        f"(4 KiB or 10 % more), without {found.added:,} of metadata and labels: {verdict}"
    )
