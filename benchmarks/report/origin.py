"""How runs were made, from their manifests: command, settings, versions, hardware."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.report.data import Origin
from bloodedge.benchmarks.report.read import entry, text
from bloodedge.files import read_json

_LONG = 16


def _pairs(values: Mapping[str, Any]) -> str:
    """Return an object of plain values as one line."""
    return text(", ".join(f"{k} {v}" for k, v in values.items() if v not in (None, "", {}, [])))


def _short(value: object) -> object:
    """Return settings without long lists, such as the indices of calibration images."""
    if isinstance(value, dict):
        return {str(key): _short(inside) for key, inside in value.items()}
    if isinstance(value, list) and len(value) > _LONG:
        return f"{len(value)} values"
    return value


def run_origin(name: str, manifest: Mapping[str, Any]) -> Origin:
    """Return how a run was made, from its manifest."""
    parents = entry(manifest, "parents")
    facts = [
        ("command", text(manifest.get("command", ""))),
        ("made", text(manifest.get("created", ""))),
        ("seconds", text(manifest.get("duration_s", ""))),
        ("seed", text(manifest.get("seed", ""))),
        ("settings", text(json.dumps(_short(manifest.get("config", {}))))),
        ("made from", _pairs({role: str(sha)[:12] for role, sha in parents.items()})),
        ("versions", _pairs(entry(manifest, "packages"))),
        ("hardware", _pairs(entry(manifest, "hardware"))),
    ]
    for variant, inside in entry(manifest.get("metrics"), "variants").items():
        if isinstance(inside, dict):
            facts.append((text(variant), _pairs(inside)))
    return Origin(text(name), text(manifest["kind"]), tuple(fact for fact in facts if fact[1]))


def result_origin(name: str, path: Path, manifest: Mapping[str, Any] | None = None) -> Origin:
    """Return how a benchmark was made: the device, its state, and the settings."""
    raw = read_json(path)
    environment = entry(raw, "environment")
    flat = {key: value for key, value in environment.items() if not isinstance(value, dict)}
    facts = [
        ("command", text((manifest or {}).get("command", ""))),
        ("device", _pairs(flat)),
        ("settings", _pairs(entry(raw, "config"))),
        ("before", _pairs(entry(environment, "before"))),
        ("after", _pairs(entry(environment, "after"))),
    ]
    return Origin(text(name), "benchmark", tuple(fact for fact in facts if fact[1]))
