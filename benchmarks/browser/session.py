"""One measurement in one browser: what the page may say, and the result it adds up to.

Nothing here trusts the page. Sizes and digests of the models are taken here; the page sends
durations and predicted classes, and percentiles and accuracy are computed from them by the
runner's own code.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.browser.litertjs import VERSION
from bloodedge.benchmarks.browser.messages import (
    BACKENDS,
    MAX_DURATIONS,
    Job,
    describe_browser,
    read_job,
    read_predictions,
    read_start,
)
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, score, timed_row
from bloodedge.benchmarks.runner import MIN_INVOKES, describe_model, schedule

_WARMUP_SECONDS = 0.2

Key = tuple[int, int, int]  # model, backend, repeat


class RefusedError(Exception):
    """A message that is not acted on, with its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class _Found:
    """What one model on one backend has given so far."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    durations_us: list[NDArray[np.float64]] = field(default_factory=list)
    scored: dict[str, Any] | None = None
    error: str = ""

    def timed(self) -> dict[str, Any]:
        """Return the figures of all runs; no percentiles where inferences share a duration.

        Where the clock is coarse a duration is the mean of a block, whose tails are lost.
        """
        row = timed_row(self.runs, self.durations_us)
        block = max(run["block"] for run in self.runs)
        if block == 1:
            return row
        said = (
            f"a coarse clock: up to {block} inferences share a duration, medians are of their means"
        )
        return {**row, **dict.fromkeys(("p90_us", "p99_us", "min_us")), "note": said}


class Session:
    """A measurement that the first device to start it owns.

    Args:
        material: what is measured.
        config: how.
        device: what to call the device; empty for what its browser says.
    """

    def __init__(self, material: Material, config: DriverConfig, device: str = "") -> None:
        self._material = material
        self._config = config
        self._device = device
        self._names = list(material.models)
        self._files = {n: describe_model(path) for n, path in material.models.items()}
        self._key = ""
        self._about: Mapping[str, Any] = {}
        self._backends: tuple[tuple[str, int], ...] = ()
        self._open: set[Key] = set()
        self._found: dict[tuple[int, int], _Found] = {}
        self._lock = threading.Lock()
        self.heard = time.monotonic()
        self.total = 0

    @property
    def started(self) -> bool:
        """Whether a device has begun."""
        return bool(self._key)

    @property
    def complete(self) -> bool:
        """Whether every job has come back."""
        return self.started and not self._open

    @property
    def done(self) -> int:
        """How many jobs have come back."""
        return self.total - len(self._open)

    def plan(self) -> dict[str, Any]:
        """Return what the page shows and needs before it starts."""
        return {
            "title": self._material.title,
            "synthetic": self._material.synthetic,
            "shape": list(self._material.images.shape),
            "models": [{"name": n, "bytes": self._files[n]["bytes"]} for n in self._names],
            "seconds": self._config.seconds,
            "warmup": _WARMUP_SECONDS,
            "least": MIN_INVOKES,
            "most": MAX_DURATIONS,
        }

    def start(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Begin, for the first device that asks; return its key and the jobs in their order.

        Raises:
            RefusedError: another device has begun.
            ValueError: the message is not what the page sends.
        """
        with self._lock:
            if self._key:
                raise RefusedError(409, "this address was used already: start the command again")
            said = read_start(message)
            self._about, self._backends = said.about, said.backends
            jobs = schedule(
                self._names,
                list(range(len(self._backends))),
                self._config.repeats,
                self._config.seed,
            )
            keys = [(self._names.index(j.model), j.threads, j.repeat) for j in jobs]
            self._open, self.total = set(keys), len(keys)
            self._key = secrets.token_urlsafe(16)
            self.heard = time.monotonic()
            listed = [{"model": m, "backend": b, "repeat": r} for m, b, r in keys]
            named = [{"name": name, "threads": threads} for name, threads in self._backends]
            return {"key": self._key, "backends": named, "jobs": listed}

    def hear(self, key: str) -> None:
        """Note a sign of life.

        Raises:
            RefusedError: it is not from the device that began.
        """
        if not self._key or not secrets.compare_digest(self._key.encode(), key.encode()):
            raise RefusedError(403, "this is not the device that began")
        self.heard = time.monotonic()

    def add(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Take one job's figures; return a line about it, and what the page shows.

        Raises:
            RefusedError: no such job is open.
            ValueError: a figure is missing, of the wrong type, or out of range.
        """
        with self._lock:
            job = read_job(message)
            if job.key not in self._open:
                raise RefusedError(409, "no such job is open")
            pair = job.key[:2]
            found = self._found.get(pair, _Found())
            found.error = job.error
            if not job.error:
                self._take(job, found)
            self._found[pair] = found
            # What failed is not tried again.
            self._open -= {key for key in self._open if job.error and key[:2] == pair} | {job.key}
            name, (backend, threads) = self._names[pair[0]], self._backends[pair[1]]
            what = job.error or f"{np.median(job.durations_us):.0f} us"
            line = f"[{self.done}/{self.total}] {name} {backend} threads={threads}: {what}"
            return line, self._summary(found)

    def _take(self, job: Job, found: _Found) -> None:
        """Keep a job's figures; the first repeat has classified the images too."""
        if job.key[2] == 0:
            labels, classes = self._material.labels, len(self._material.class_names)
            found.scored = score(read_predictions(job, len(labels), classes), labels)
        found.runs.append(dict(job.figures))
        found.durations_us.append(job.durations_us)

    def _summary(self, found: _Found) -> dict[str, Any]:
        if not found.runs:
            return {"error": found.error}
        scored = found.scored or {"accuracy": None}
        timed = found.timed()
        kept = ("median_us", "p90_us", "p99_us", "min_us", "load_ms", "first_ms", "drift")
        shown = {key: timed[key] for key in kept}
        return {**shown, "accuracy": scored["accuracy"], "error": found.error or None}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each model and backend that has given something."""
        with self._lock:
            return [self._row(*key) for key in sorted(self._found)]

    def _row(self, model: int, backend: int) -> dict[str, Any]:
        name, (kind, threads) = self._names[model], self._backends[backend]
        found = self._found[model, backend]
        row = {"model": name, "threads": threads, "delegate": BACKENDS[kind][0]}
        row |= self._files[name]
        if found.error:
            return {**row, "error": found.error}
        scored = found.scored or {"images": 0, "accuracy": None, "predictions_sha256": None}
        return {**row, **scored, **found.timed(), "error": None}

    def environment(self) -> dict[str, Any]:
        """Return what is known of the device and its browser."""
        platform, browser = describe_browser(self._about.get("user_agent", ""))
        return {
            "runtime": "litert.js",
            "runtime_version": VERSION,
            "cpu_model": self._device or platform,
            "machine": browser,
            **self._about,
        }
