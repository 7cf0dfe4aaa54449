"""Tables that are kept in the repository: what was found, as JSON, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bloodedge.files import write_json, write_text

# From the repository's root, where the scripts are run.
RESULTS = Path("benchmarks/results")


def record(
    folder: Path, stem: str, found: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str]
) -> None:
    """Write `stem.json` and `stem.md` and print the second."""
    text = render(found)
    write_json(folder / f"{stem}.json", found)
    write_text(folder / f"{stem}.md", text)
    print(text)
