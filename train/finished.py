"""Whether a finished run is what the same settings and data would make now."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from bloodedge.data.dataset import Dataset
from bloodedge.train.device import batch_parts

# What says how a run is started.
STARTED = frozenset({"force", "resume"})
# And where it is: together, what does not say what it is.
ASIDE = STARTED | {"name"}


def settings_that_differ(
    config: Any, manifest: Mapping[str, Any], data: Dataset, aside: Collection[str] = ASIDE
) -> list[str]:
    """Return how a finished run's settings and data differ from what is wanted now, in words.

    A setting that a run of an earlier version does not have was off then.

    Args:
        config: a stage's settings: a dataclass.
        manifest: of the finished run.
        data: the data set of now.
        aside: the settings that may differ, by their dotted path.
    """
    recorded = dict(_flat(manifest.get("config", {})))
    settings = asdict(config)
    wanted = dict(_flat(json.loads(json.dumps(settings))))
    if "fit" in settings:
        # A batch in parts gives batch norm other statistics; a whole one leaves no entry.
        recorded = {"devices": 1, **recorded}
        wanted["devices"] = batch_parts()
    found = [
        f"{key} is {_word(recorded.get(key))}, not {_word(value)}"
        for key, value in wanted.items()
        if key not in aside and recorded.get(key) != value and (key in recorded or value)
    ]
    if manifest["data"].get("fingerprint") != data.fingerprint:
        title = manifest["data"].get("title")
        other = f"{title}, not {data.title}" if title != data.title else f"other images of {title}"
        found.append(f"its data is {other}")
    return found


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested JSON objects by their dotted path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
