"""Progress for people: a live bar on a terminal, sparse plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bloodedge import hosts

T = TypeVar("T")
_LOG_EVERY_S = 30.0


def stderr() -> Console:
    """Return the console for everything that is not a result."""
    return Console(stderr=True, highlight=False)


class Meter:
    """Progress of `total` steps: `update` after each, as a context manager."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._live = sys.stderr.isatty() and hosts.is_first()
        self._start = self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr(),
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task(label, total=total, note="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, note: str = "", steps: int = 1) -> None:
        """Count `steps` as done and show `note` beside the bar."""
        self._done += steps
        self._bar.update(self._task, advance=steps, note=note)
        now = time.monotonic()
        if hosts.is_first() and not self._live and now - self._printed > _LOG_EVERY_S:
            self._printed = now
            left = (now - self._start) / self._done * (self._total - self._done)
            print(
                f"{self._label}: {self._done}/{self._total} {note} ({left:.0f} s left)",
                file=sys.stderr,
                flush=True,
            )


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield the items while showing progress."""
    with Meter(label, total) as meter:
        for item in items:
            yield item
            meter.update()


def say(line: str) -> None:
    """Print one line about what is being done, outside the results; of several hosts, the first."""
    if hosts.is_first():
        print(line, file=sys.stderr, flush=True)
