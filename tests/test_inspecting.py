"""`bloodedge inspect`: every byte accounted for, and what a file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bloodedge.cli.app import app
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import STANDARD, About, standard_metadata
from bloodedge.errors import ModelError
from bloodedge.references import packaged_zoo


@pytest.fixture
def bare() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    model = read_model(path.read_bytes()).model
    model.drop("metadata")
    return lean(write_tables(model))


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["inspect", *map(str, words)], env={"COLUMNS": "150"})


def test_the_shares_add_up_to_the_file(tmp_path: Path, bare: bytes) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(append_labels(bare, ("a", "b")))
    done = run(path, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert sum(found["purposes"].values()) == found["bytes"] == path.stat().st_size
    assert found["added"] == path.stat().st_size - len(bare)
    assert found["above_floor"] == len(bare) - found["lean_limit"]
    assert found["lean_limit"] == found["constants"] + round(0.1 * found["constants"])


def test_the_table_tells_the_floor_and_the_origin() -> None:
    done = run("cnn_se")
    assert done.exit_code == 0, done.output
    for purpose in ("weights", "biases", "scales", "zero points", "names", "metadata", "padding"):
        assert f"\n{purpose} " in done.stdout
    assert "of metadata and labels: " in done.stdout
    assert "bytes above" in done.stdout
    assert "metadata, by bloodedge: cnn_se" in done.stdout
    assert "gate passed" in done.stdout


def test_damaged_metadata_is_one_line_below_the_map(tmp_path: Path, bare: bytes) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(lean(bare, {STANDARD: standard_metadata(About("x"))[:30]}))
    done = run(path)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("metadata: cannot be read: ")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"text")
    done = run(path)
    assert isinstance(done.exception, ModelError)
    assert str(done.exception).startswith(f"{path}: no TFLite model")
