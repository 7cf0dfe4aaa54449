"""What one model gave with one thread count and delegate, over its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bloodedge.benchmarks.android.output import Timings
from bloodedge.benchmarks.runner import DRIFT_LIMIT


@dataclass
class Pair:
    """What one model gave with one thread count and delegate."""

    runs: list[Timings] = field(default_factory=list)
    scored: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def figures(pair: Pair) -> Mapping[str, Any]:
    """Return a row's figures: the median over its processes, as the runner's."""
    if pair.error:
        return {"error": pair.error}
    runs = pair.runs
    medians = [run.median_us for run in runs if run.median_us is not None]
    centres = medians if len(medians) == len(runs) else [run.mean_us for run in runs]
    middle = float(np.median(centres))
    spread = (max(centres) - min(centres)) / middle if middle else 0.0
    memory = [run.memory_kib for run in runs if run.memory_kib is not None]
    return {
        **pair.scored,
        "median_us": middle if centres is medians else None,
        "mean_us": float(np.median([run.mean_us for run in runs])),
        "min_us": min(run.min_us for run in runs),
        "load_ms": float(np.median([run.init_us for run in runs])) / 1000,
        "first_ms": float(np.median([run.first_us for run in runs])) / 1000,
        "peak_rss_kib": max(memory, default=None),
        "repeats": len(runs),
        "count": sum(run.count for run in runs),
        "spread": round(spread, 4),
        "drift": spread > DRIFT_LIMIT,
        "partly_delegated": any(run.partly for run in runs),
        "error": None,
    }
