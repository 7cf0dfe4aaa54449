"""What one model gave over several processes becomes the figures of one row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bloodedge.benchmarks.android.output import Timings
from bloodedge.benchmarks.android.pair import Pair, figures

RUN = Timings(100, 210.0, 190.0, 300.0, 200.0, 250.0, 12000.0, 400.0, 3584, False)
SLOWER = replace(RUN, mean_us=231.0, median_us=202.0)


def test_with_percentiles_it_is_the_median_and_scatter_of_the_medians() -> None:
    found = figures(Pair([RUN, SLOWER]))
    assert (found["median_us"], found["mean_us"]) == (201.0, 220.5)
    assert found["spread"] == pytest.approx(2 / 201, abs=1e-4)


@pytest.mark.parametrize("without", [0, 1])
def test_where_one_process_gives_no_percentiles_there_is_no_median(without: int) -> None:
    """A process's mean is no median, and the median of the others would hide that one."""
    runs = [RUN, SLOWER]
    runs[without] = replace(runs[without], median_us=None)
    found = figures(Pair(runs))
    assert (found["median_us"], found["mean_us"], found["repeats"]) == (None, 220.5, 2)
    assert found["spread"] == pytest.approx(21 / 220.5, abs=1e-4)
