"""Threads for what computes outside the interpreter's lock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def threads(count: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that stop at an error or Ctrl-C, instead of first doing all that is left.

    Args:
        count: how many; by default, as many as `ThreadPoolExecutor` takes.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
