"""Commands do not go and fetch the default data for a model of other data."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from bloodedge.cli.app import app
from bloodedge.errors import ConfigError, DataError
from bloodedge.runs import SCHEMA_VERSION


def run(command: str) -> BaseException | None:
    return CliRunner().invoke(app, command.split()).exception


def trained(runs: Path, origin: str, name: str) -> None:
    """Leave what a training leaves, all but a model that loads."""
    folder = runs / "own"
    folder.mkdir(parents=True)
    data = {"origin": origin, "name": name, "title": f"{name}, that is"}
    manifest = {
        **{"kind": "train", "name": "own", "data": data, "model": {}, "metrics": {}},
        "files": {"model.keras": {}},
        "schema_version": SCHEMA_VERSION,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "model.keras").write_bytes(b"")


@pytest.mark.parametrize(
    ("origin", "name", "fix"),
    [
        ("folder", "Meine Zellen", "add --data and that folder"),
        ("folder", "bloodmnist", "add --data and that folder"),
        ("synthetic", "synthetic", "add --data synthetic"),
        ("official", "pathmnist", "add --data pathmnist"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "export own",
        "quantize own --mode int8",
        "quantize own --mode qat",
        "sensitivity own",
        "prune own --channels --macs 0.5",
        "prune own --weights",
        "cluster own",
        "verify cnn_se own",
        "evaluate own",
        "bundle own",
        "benchmark own",
        "compress own --recipe int8",
        "distill --teacher own --student cnn_se",
        "quantize vgg16 --mode qat --teacher own",
        "prune vgg16 --weights --teacher own",
        "cluster vgg16 --teacher own",
        "compress vgg16 --recipe slim50 --teacher own",
    ],
)
def test_the_default_data_is_refused_to_a_model_of_other_data(
    isolated_runs: Path, command: str, origin: str, name: str, fix: str
) -> None:
    trained(isolated_runs, origin, name)
    with pytest.raises(ConfigError, match=f"own was trained on {name}, .* the default.*{fix}"):
        raise run(command) or AssertionError("it went on")


@pytest.mark.parametrize(
    ("origin", "options"), [("npz", ""), ("folder", " --data bloodmnist"), ("synthetic", None)]
)
def test_other_data_are_taken_where_they_are_meant(
    isolated_runs: Path, monkeypatch: pytest.MonkeyPatch, origin: str, options: str | None
) -> None:
    """Files may well hold the default's own images; and what is given is given."""
    trained(isolated_runs, origin, "cells")
    monkeypatch.setattr("bloodedge.data.sources.load_data", Mock(side_effect=DataError("enough")))
    if options is None:
        monkeypatch.setenv("BLOODEDGE_DATA", "bloodmnist")
    with pytest.raises(DataError, match="enough"):
        raise run("benchmark own" + (options or "")) or AssertionError("it went on")
