"""Which model files failed the gate of their export, and are there all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.report.read import entry
from bloodedge.deploy.metadata import FAILED, read_metadata
from bloodedge.errors import BloodedgeError
from bloodedge.references import TFLITE_SUFFIX
from bloodedge.runs import Run

# A student's file has some hundred KB; what is larger is none of our exports.
_MAX_BYTES = 64 << 20


def gates(runs: Iterable[Run]) -> dict[str, bool]:
    """Return whether files failed their gate, by digest; those of which nothing says it are absent.

    The manifest of an export says it. Where a manifest does not, as in the zoo, the file itself is
    asked.
    """
    found: dict[str, bool] = {}
    for digest, failed in (told for run in runs for told in _told(run)):
        # Of two that tell of one file, a failure counts.
        found[digest] = found.get(digest, False) or failed
    return found


def _told(run: Run) -> Iterator[tuple[str, bool]]:
    """Yield digests of a run's files and whether they failed."""
    said = dict(_of_the_manifest(run.manifest))
    for name, file in entry(run.manifest, "files").items():
        if "/" in name or not name.endswith(TFLITE_SUFFIX) or not isinstance(file, dict):
            continue
        if name in said:
            yield str(file.get("sha256")), said[name]
        else:
            yield from _of_the_file(run.path / name)


def _of_the_manifest(manifest: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield names of files and whether they failed."""
    for inside in entry(manifest.get("metrics"), "variants").values():
        if isinstance(inside, dict) and isinstance(inside.get(FAILED), list):
            yield str(inside.get("file")), bool(inside[FAILED])


def _of_the_file(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield a file's digest and what its own metadata says, if it says it; it may be any file."""
    with suppress(BloodedgeError, OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= _MAX_BYTES:
            content = path.read_bytes()
            failed = read_metadata(content).provenance.get(FAILED)
            if isinstance(failed, list):
                yield sha256(content).hexdigest(), bool(failed)
