from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bloodedge.cli.app import app
from bloodedge.errors import ConfigError
from bloodedge.runs import Manifest, open_run


def add_run(name: str, folder: Path, *, synthetic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODEDGE_RUNS", str(folder))
    data = {"synthetic": synthetic}
    with open_run(name) as run:
        run.commit(Manifest("train", name, {}, data, {}, {}, {}, 0, 1.0))


def test_the_demo_replaces_its_own_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def run(command: list[str], called: str, **_: Any) -> int:
        ran.append(command)
        return 3

    monkeypatch.setattr("bloodedge.cli.steps.run_child", run)
    add_run("vgg16", tmp_path, synthetic=True, monkeypatch=monkeypatch)
    assert CliRunner().invoke(app, ["demo", "--out", str(tmp_path)]).exit_code == 3
    assert ran[0][-3:] == ["data", "info", "synthetic"]
    add_run("mine", tmp_path, synthetic=False, monkeypatch=monkeypatch)
    refused = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(refused.exception, ConfigError)
    assert "holds mine, a run on other images" in str(refused.exception)
    assert len(ran) == 1
