"""The comparison of loops that could tell how steady a machine is."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from bloodedge.benchmarks import steadiness
from bloodedge.errors import ConfigError


def test_only_steady_processes_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = iter([(40.0, 0.0), (41.0, 0.5), (39.9, 0.01), (49.0, 0.02)])

    def measured(_name: str, _seconds: float) -> dict[str, float]:
        median, jitter = next(figures)
        return {"median_us": median, "jitter": jitter}

    monkeypatch.setattr(steadiness, "measured", measured)
    steadiness.main(["--processes", "2"])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| checksums | 2 of 2 | 39.9 40.0 |",
        "| additions | 1 of 2 | 49.0 |",
    ]


@pytest.mark.parametrize("loop", steadiness.LOOPS)
def test_each_loop_is_measured_in_a_process_of_its_own(loop: str) -> None:
    assert 1 < steadiness.measured(loop, 0.01)["median_us"] < 1e6


def test_a_loop_runs_on_one_cpu_and_for_as_long_as_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(steadiness.runner, "pin", threads.append)
    figures = {"jitter": steadiness.runner.JITTER_LIMIT}
    monkeypatch.setitem(steadiness.LOOPS, "additions", lambda s: {"median_us": s, **figures})
    steadiness.main(["--loop", "additions", "--seconds", "3"])
    answer = capsys.readouterr().out
    assert (threads, json.loads(answer)) == ([1], {"median_us": 3.0, **figures})
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command[-4:])
        return SimpleNamespace(stdout=answer)

    monkeypatch.setattr(steadiness.subprocess, "run", run)
    steadiness.main(["--processes", "1", "--seconds", "3"])
    assert asked == [["--loop", name, "--seconds", "3.0"] for name in steadiness.LOOPS]
    # What jitters just as much as is allowed counts.
    assert "| additions | 1 of 1 | 3.0 |" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--processes=0", "--seconds=-1", "--seconds=nan"])
def test_numbers_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="is out of range"):
        steadiness.main([option])
