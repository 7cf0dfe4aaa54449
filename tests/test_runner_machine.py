"""What was measured on one machine is never gone on with on another."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bloodedge.benchmarks import runner


def journal(folder: Path, *, resume: bool) -> runner.Journal:
    """Start or go on, with nothing asked for that could differ."""
    plan = runner.make_plan(argparse.Namespace(sample=None), {}, {}, "ai_edge_litert 2.3.0")
    return runner.Journal(folder / "r.json", plan, resume)


@pytest.mark.parametrize("what", ["platform.node", "platform.machine", "cpu_model"])
def test_a_run_does_not_go_on_on_another_machine(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, resume=False).close(finished=False)
    journal(tmp_path, resume=True).close(finished=False)
    monkeypatch.setattr(f"bloodedge.benchmarks.runner.{what}", lambda: "another")
    with pytest.raises(runner.RunnerError, match=r"is of another run \(machine differ\)"):
        journal(tmp_path, resume=True)
