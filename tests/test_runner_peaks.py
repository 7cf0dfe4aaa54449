"""The roofline's peaks are the work that was done over the time that it took."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.benchmarks import runner

SECONDS = 1e-3


@pytest.fixture(autouse=True)
def known_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything run once, and take a millisecond."""

    def once(call: Callable[[], object], _: float) -> float:
        call()
        return SECONDS

    monkeypatch.setattr(runner, "best_seconds", once)


def test_numpys_peak_counts_every_multiply_accumulate_of_the_matrices() -> None:
    assert runner.numpy_gemm(0.1) == pytest.approx(512**3 / SECONDS / 1e9, abs=1e-3)


@pytest.mark.parametrize(("size", "threads"), [(1 << 16, 1), (1 << 20, 3), (16 << 20, 2)])
def test_the_copy_speed_counts_what_every_thread_reads_and_writes(
    size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []

    def copyto(target: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        moved.append(target.nbytes + source.nbytes)

    monkeypatch.setattr(np, "copyto", copyto)
    speed = runner.copy_speed(size, threads, 0.1)
    assert set(moved) == {2 * size}
    assert len(moved) % threads == 0
    assert speed == pytest.approx(sum(moved) / SECONDS / 1e9, abs=1e-3)
