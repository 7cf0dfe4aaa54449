"""Every kind of table that is read or written, of models and of their metadata."""

from __future__ import annotations

from collections.abc import Mapping

from bloodedge.deploy.flat.metadata_schema import METADATA_TABLES
from bloodedge.deploy.flat.schema import TABLES, Field

KINDS: Mapping[str, tuple[Field | None, ...]] = {**TABLES, **METADATA_TABLES}


def default_of(kind: str, name: str) -> int:
    """Return what a scalar field stands for where it is absent."""
    return next((f.default for f in KINDS[kind] if f is not None and f.name == name), 0)
