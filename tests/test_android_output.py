"""benchmark_model's output, old and new, whole and cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodedge.benchmarks.android.output import Timings, parse

OUTPUTS = Path(__file__).with_name("benchmark_model")
NEW = (OUTPUTS / "new.txt").read_text()
# 2020: no marks, no percentiles, no first inference in the summary.
OLD = (OUTPUTS / "old.txt").read_text()
SAME = (OUTPUTS / "same.txt").read_text()


def test_a_new_build_gives_everything() -> None:
    expected = Timings(4930, 203.1, 195.0, 260.0, 201.0, 220.0, 12300.0, 400.0, 3584, False)
    assert parse(NEW, "") == expected


def test_an_old_build_gives_no_percentiles_and_the_first_inference_of_the_warm_up() -> None:
    expected = Timings(240, 10412.3, 4001.0, 5000.0, None, None, 12300.0, 4512.0, None, False)
    assert parse(OLD, "") == expected


def test_runs_that_all_took_equally_long_have_that_as_every_figure() -> None:
    found = parse(SAME, "")
    assert (found.mean_us, found.min_us, found.max_us, found.median_us) == (7.0,) * 4
    assert (found.count, found.first_us) == (1000, 7.0)


def test_a_single_run_is_its_own_statistics() -> None:
    lines = "count=1 curr=90\ncount=1 curr=80\nInference timings in us: Init: 5, x"
    assert parse(lines, "").median_us == 80.0


def test_windows_line_ends_and_other_streams_do_not_matter() -> None:
    assert parse(NEW.replace("\n", "\r\n"), "") == parse(NEW, "")
    assert parse(NEW, "WARNING: linker: something\nINFO: GPU\n") == parse(NEW, "")


def test_a_delegate_that_takes_a_part_is_told_from_one_that_takes_none() -> None:
    line = "INFO: Explicitly applied GPU delegate, and the model graph will be {} executed by the "
    assert not parse(NEW + line.format("completely") + "delegate.\n", "").partly
    partly = line.format("partially") + "delegate w/ 3 delegate kernels.\n"
    assert parse(NEW + partly, "").partly
    none = (
        "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed "
        "by the delegate.\n"
    )
    with pytest.raises(ValueError, match=r"Though NNAPI delegate .* will not be executed"):
        parse(none + NEW, "")


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        ("", "", "gave no timings"),
        (NEW[: NEW.index("count=4930")], "", "gave no timings"),
        (NEW.replace("Init:", "Start:"), "", "gave no timings"),
        (
            "INFO: STARTING!\n",
            "ERROR: Failed to load model '/data/x'\nERROR: Benchmarking failed.\n",
            "Failed to load model '/data/x'",
        ),
        ("STARTING!\n", "Failed to mmap model /data/x\nAborted\n", "Failed to mmap model /data/x"),
        ("", "INFO: fine\nSegmentation fault\n", "Segmentation fault"),
        ("", "ERROR: \x1b[31mred\n", r"\?\[31mred"),
        ("", "no answer within 300 s", "no answer within 300 s"),
        (NEW.replace("avg=203.1", "avg=nan"), "", "count=4930"),
        (NEW.replace("avg=203.1", "avg=1e300"), "", "the number 1e300"),
        (NEW.replace("avg=203.1 ", ""), "", "count=4930"),
    ],
)
def test_a_failure_is_told_in_the_tools_own_words(out: str, err: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(out, err)
